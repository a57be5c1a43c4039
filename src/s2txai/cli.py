"""The command ``s2txai``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from s2txai import __version__
from s2txai.errors import UserError
from s2txai.study import layout
from s2txai.study.config import read_config
from s2txai.study.plan import plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    Parameters
    ----------
    arguments
        Of the command line, without the program's name; those of the process when None.
    """
    options = _parser().parse_args(arguments)
    try:
        print(options.run(options))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _show(options: argparse.Namespace) -> str:
    # Imported here, as below: the help must not wait for Matplotlib or torch.
    from s2txai.report.show import show

    return show(options.file, options.output)


def _estimate(options: argparse.Namespace) -> str:
    from s2txai.models.process import configure_process
    from s2txai.study.dry_run import planned_jobs
    from s2txai.study.estimate import estimate_table

    root = Path.cwd()
    if not (root / "Snakefile").exists():
        raise UserError(
            f"{root} holds no Snakefile; start 's2txai estimate' in the project's folder."
        )
    config = read_config(root, options.config)
    study = plan(config, root)
    n_jobs = planned_jobs(root, options.config).total()
    precision = config["compute"]["precision"]
    configure_process(precision=precision, threads=options.cores, quiet=True)
    return estimate_table(study, config, Path(layout.MODELS), n_jobs=n_jobs, threads=options.cores)


def _fetch_dataset(options: argparse.Namespace) -> str:
    from s2txai.study.fetch_dataset import HubDataset, fetch_dataset

    dataset = HubDataset(
        repo=options.name,
        revision=options.revision,
        split=options.split,
        folder=options.folder,
        language=options.language,
        audio=options.audio_column,
        text=options.text_column,
        translations=dict(options.translation),
    )
    number = fetch_dataset(dataset, options.output)
    return (
        f"{number} utterances. Entry for the list of datasets:\n\n"
        f"{options.output.name}:\n"
        f"  manifest: {options.output.resolve() / 'manifest.tsv'}\n"
        f"  description: {dataset.repo}, {dataset.split}, revision {dataset.revision}.\n"
        "  licence: as its page on the hub says"
    )


def _translation(text: str) -> tuple[str, str]:
    language, equals, column = text.partition("=")
    if not (language and equals and column):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form LANGUAGE=COLUMN")
    return language, column


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="s2txai",
        description="Look into what the workflow computed, and fetch what it needs.",
        epilog="The workflow itself runs with: snakemake --cores N",
    )
    parser.add_argument("--version", action="version", version=f"s2txai {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "show",
        help="print what a result file holds, and draw it",
        description="Print what a result file (.npz) of any step holds: where it comes from, its "
        "parameters, and each array with shape, axes, unit and range. Draw its maps as PNG.",
    )
    command.add_argument("file", type=Path, metavar="FILE.npz")
    command.add_argument(
        "--output", type=Path, metavar="FIGURE.png", help="default: beside the file"
    )
    command.set_defaults(run=_show)
    command = commands.add_parser(
        "estimate",
        help="estimate what a configuration will cost",
        description="Print jobs, masks, time and disk of a configuration before it runs; models "
        "that are fetched are timed for some seconds. Start it in the project's folder.",
    )
    command.add_argument(
        "config", type=Path, nargs="*", metavar="CONFIG.yaml", help="as for --configfile"
    )
    command.add_argument("--cores", type=int, default=os.cpu_count() or 1, metavar="N")
    command.set_defaults(run=_estimate)
    command = commands.add_parser(
        "fetch-dataset",
        help="fetch speech from the Hugging Face hub",
        description="Fetch one split of an audio dataset that lies on the Hugging Face hub as "
        "Parquet files, and write its recordings with a manifest into a new folder.",
    )
    _add_fetch_dataset(command)
    return parser


def _add_fetch_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="OWNER/NAME")
    command.add_argument("--revision", required=True, metavar="SHA", help="hash of the commit")
    command.add_argument("--split", required=True)
    command.add_argument("--folder", help="of the Parquet files, where several have the split")
    command.add_argument("--language", required=True, metavar="CODE", help="of the speech")
    command.add_argument("--audio-column", default="audio", metavar="COLUMN", help="default: audio")
    command.add_argument("--text-column", required=True, metavar="COLUMN", help="transcript")
    command.add_argument(
        "--translation",
        type=_translation,
        action="append",
        default=[],
        metavar="CODE=COLUMN",
        help="may be repeated",
    )
    command.add_argument("--output", required=True, type=Path, metavar="DIR")
    command.set_defaults(run=_fetch_dataset)
