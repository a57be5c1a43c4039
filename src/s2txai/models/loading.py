"""Loading a model on a device, in a precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from s2txai.errors import UserError
from s2txai.log import logger
from s2txai.models.base import Loader, Model
from s2txai.models.families import FAMILIES
from s2txai.models.options import NO_OPTIONS
from s2txai.models.recognition import family_of

_PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def resolve_device(device: str) -> str:
    """Return the device that ``auto`` stands for here: a GPU where there is one.

    Raises
    ------
    UserError
        If the device is a GPU and torch sees none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"Device '{device}' needs a GPU, but torch finds none here; choose the device cpu or "
            "auto."
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return the precision that ``auto`` stands for: float16 on a GPU, float32 elsewhere.

    Raises
    ------
    UserError
        If the precision is unknown, or is TF32 without a GPU.
    """
    on_gpu = device.startswith("cuda")
    if precision == "auto":
        return "float16" if on_gpu else "float32"
    if precision not in _PRECISIONS:
        raise UserError(
            f"Unknown precision '{precision}'; choose one of: auto, {', '.join(_PRECISIONS)}."
        )
    if precision == "tf32" and not on_gpu:
        raise UserError(
            f"Precision 'tf32' needs a GPU, which '{device}' is not; choose the precision float32 "
            "or auto."
        )
    return precision


def load_model(
    directory: Path | str,
    family: str | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    options: Mapping[str, Any] | None = None,
    compile: bool = False,
) -> Model:
    """Load a model. Nothing of the process changes: neither threads nor switches of torch.

    Parameters
    ----------
    directory
        Holds its files.
    family
        A name of :data:`s2txai.models.families.FAMILIES`; None concludes it from the files.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision
        Of the forward passes: ``auto``, ``float32``, ``tf32``, ``float16`` or ``bfloat16``. Softmax
        and scores are float32 always.
    options
        Of the family, as ``options`` of an entry in the table of models.
    compile
        Whether to compile the encoder, where the family can.

    Raises
    ------
    UserError
        If the family is unknown or has no such option, the device is not there, or the files are
        not those of a model.
    """
    directory, options = Path(directory), NO_OPTIONS if options is None else options
    name = family_of(directory) if family is None else family
    _check_options(name, options)
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    if FAMILIES[name].experimental:
        logger.warning(
            "The family '%s' is experimental: it was tested with random weights only, so look at "
            "the transcripts before you trust other numbers.", name,
        )  # fmt: skip
    load: Loader = FAMILIES[name].load()
    model = load(
        directory, device=torch.device(device), precision=_PRECISIONS[precision], options=options
    )
    model.tf32 = precision == "tf32"
    model.directory = directory
    if compile:
        model.compile()
    return model


def _check_options(family: str, options: Mapping[str, Any]) -> None:
    valid = FAMILIES[family].options
    unknown = [name for name in options if name not in valid]
    if unknown:
        raise UserError(
            f"The family '{family}' has no option '{unknown[0]}', only "
            f"{', '.join(valid) or 'none at all'}."
        )
