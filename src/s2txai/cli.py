"""The command ``s2txai``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from s2txai import __version__
from s2txai.errors import UserError
from s2txai.plan import plan, read_config


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
    import transformers

    from s2txai.estimate import print_estimate

    transformers.logging.set_verbosity_error()
    root = Path.cwd()
    config = read_config(root, options.config)
    models = Path("resources", "models")
    return print_estimate(plan(config, root), config, models, options.cores)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="s2txai",
        description="Look into what the workflow computed.",
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
        help="tell what a configuration will cost",
        description="Print jobs, masks, time and disk of a configuration before it runs; models "
        "that are fetched are timed for some seconds. Start it in the project's folder.",
    )
    command.add_argument(
        "config", type=Path, nargs="*", metavar="CONFIG.yaml", help="as for --configfile"
    )
    command.add_argument("--cores", type=int, default=os.cpu_count() or 1, metavar="N")
    command.set_defaults(run=_estimate)
    return parser
