"""What the files of weights hold, by their headers; without torch."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from s2txai.errors import UserError

_LONGEST_HEADER = 100_000_000  # bytes, as the library of the format allows
_DEPTH = 2  # of folders in the model's, where training leaves adapters
_PICKLES_AND_SETTINGS = (".json", ".safetensors", ".bin", ".pt")
# As peft names what it adds to a network, or wraps around its layers.
_OF_ADAPTER = re.compile(
    r"(?:^|[._])(?:lora|ia3|hada|lokr|loha|oft|boft|vera)_|\.base_layer\.|^base_model\.model\."
)


def stored_types(file: Path) -> dict[str, str]:
    """Return names and types of the tensors of a ``*.safetensors``.

    Nothing for a file that cannot be read, which the loader complains about.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, _LONGEST_HEADER)))
        return {name: str(header[name]["dtype"]) for name in header if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def refuse_adapters(directory: Path) -> None:
    """Refuse a folder that holds an adapter, which is no model without its base.

    By the names of files, in folders of the folder as well, and by the names of the tensors.

    Raises
    ------
    UserError
        If there is one.
    """
    for file in _files(directory, _DEPTH):
        named = file.name.startswith("adapter_") and file.suffix in _PICKLES_AND_SETTINGS
        if named or any(
            _OF_ADAPTER.search(name)
            for name in (stored_types(file) if file.suffix == ".safetensors" else ())
        ):
            raise UserError(
                f"{directory} holds an adapter ({file.relative_to(directory)}), whose changes "
                "would be passed over; merge it into its base model first ('merge_and_unload' of "
                "peft), save the result with 'save_pretrained' in a folder of its own, and use "
                "that folder."
            )


def _files(directory: Path, depth: int) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, by name; hidden folders are left out."""
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.is_file():
            yield entry
        elif depth and not entry.name.startswith("."):
            yield from _files(entry, depth - 1)
