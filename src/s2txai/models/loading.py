"""Loading a model on a device, in a precision."""

from pathlib import Path

import torch

from s2txai.errors import UserError
from s2txai.models.base import Loader, Model
from s2txai.models.families import FAMILIES

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
        If a GPU is asked for and torch sees none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"The config asks for device '{device}', but torch sees no GPU here; "
            "set 'device: cpu' or 'device: auto'."
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return the precision that ``auto`` stands for: float16 on a GPU, float32 elsewhere.

    Raises
    ------
    UserError
        If TF32 is asked for without a GPU.
    """
    on_gpu = device.startswith("cuda")
    if precision == "auto":
        return "float16" if on_gpu else "float32"
    if precision == "tf32" and not on_gpu:
        raise UserError(
            f"The config asks for precision 'tf32', which '{device}' does not have; "
            "set 'precision: float32' or 'precision: auto'."
        )
    return precision


def load_model(
    family: str,
    directory: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
) -> Model:
    """Load a model.

    Parameters
    ----------
    family
        A name of :data:`s2txai.models.families.FAMILIES`.
    directory
        Where its files lie.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision
        Of the forward passes: ``auto``, ``float32``, ``tf32``, ``float16`` or ``bfloat16``. Softmax
        and scores are float32 always.
    compile
        Whether to compile the encoder, where the family can.

    Raises
    ------
    UserError
        If the family is unknown or the device is not there.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    # Both are settings of the process; convolutions would round to TF32 unasked.
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    loader: Loader = FAMILIES[family].load()
    model = loader(directory, device=torch.device(device), precision=_PRECISIONS[precision])
    if compile:
        model.compile()
    return model
