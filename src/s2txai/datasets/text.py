"""Text files of datasets, line by line."""

from pathlib import Path

from s2txai.errors import UserError


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file without their ends; blank ones too, since lines may count.

    Raises
    ------
    UserError
        If the file cannot be read or is not UTF-8; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); correct its path in the list of "
            "datasets, or its permissions."
        ) from error
    # Not str.splitlines: a transcript may hold one of the rarer line separators of Unicode.
    raw_lines = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    return [_decoded(path, line, raw) for line, raw in enumerate(raw_lines, start=1)]


def _decoded(path: Path, line: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {line}: not UTF-8 text; save the file in that encoding."
        ) from error
