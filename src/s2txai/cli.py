"""The command ``s2txai``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from s2txai import __version__
from s2txai.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    Parameters
    ----------
    arguments
        Of the command line, without the program's name; those of the process when None.
    """
    options = _parser().parse_args(arguments)
    # Imported here: the help must not wait for Matplotlib.
    from s2txai.report.show import show

    try:
        print(show(options.file, options.output))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


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
    return parser
