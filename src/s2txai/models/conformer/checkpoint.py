"""Reading the checkpoints that the paper's models are published as, without running their code."""

import argparse
import collections
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar

from s2txai.errors import UserError
from s2txai.models.conformer.network import Conformer

# Classes that a checkpoint may hold besides tensors and plain data: settings, counters of training.
_ALLOWED = (
    argparse.Namespace,
    collections.defaultdict,
    dict,  # named by a defaultdict of tables
    scalar,
    (scalar, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
    np.dtype,
    np.dtypes.BoolDType,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int32DType,
    np.dtypes.Int64DType,
)
_REFUSED = re.compile(r"GLOBAL ([\w.]+)|got <class '([\w.]+)'>")


def load_fairseq_checkpoint(path: Path, *, batch_unsafe_relative_shift: bool = False) -> Conformer:
    """Load the network of a checkpoint.

    The file is a table with the weights under ``model`` and the settings of training under ``cfg``
    or ``args``. Unpickling is restricted to tensors, plain data and the classes that such settings
    consist of; nothing in the file is run.

    Parameters
    ----------
    path
        The checkpoint, as ``torch.save`` of torch 1.6 or later wrote it.
    batch_unsafe_relative_shift
        Whether positions count by the longest utterance of a batch, whatever the settings say;
        models that were trained so are decoded without it.

    Raises
    ------
    UserError
        If the file is missing, is no such checkpoint, holds objects of other classes, or a network
        that is not implemented.
    """
    content = _read(Path(path))
    state = content.get("model")
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(values, torch.Tensor) for name, values in state.items()
    ):
        raise UserError(
            f"{path} has no weights under 'model'; it is no fairseq checkpoint of a Conformer."
        )
    for name, values in state.items():
        if not _is_stored(values):
            raise UserError(f"{path} does not hold the numbers of '{name}'; download it again.")
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise UserError(
                f"{path} holds numbers under '{name}' that are not finite; take another "
                "checkpoint, since this one is damaged or its training failed."
            )
    settings = _settings(content, path)
    settings["batch_unsafe_relative_shift"] = batch_unsafe_relative_shift
    try:
        return Conformer.from_state(
            {name: _at_least_single(values) for name, values in state.items()}, **settings
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def checkpoint_settings(path: Path) -> dict[str, Any]:
    """Return the model's settings of a checkpoint; raises as :func:`load_fairseq_checkpoint`."""
    return _settings(_read(Path(path)), path)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"No checkpoint {path}; correct the model's folder.")
    # The older format can claim any size for its data.
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is no checkpoint that torch 1.6 or later wrote; save it again with a newer "
            "torch, or download it again."
        )
    _check_records(path)
    try:
        with torch.serialization.safe_globals(list(_ALLOWED)):
            # Mapped, not read: optimizer states are never looked at.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        refused = _REFUSED.search(str(error))
        what = (refused[1] or refused[2]) if refused else "something"
        raise UserError(
            f"{path} holds {what}, which no model's weights and settings need and which could run "
            "code, so it is not loaded; save a checkpoint of 'model' and 'args' alone."
        ) from error
    except Exception as error:  # a damaged file raises many kinds
        raise _damaged(path, error) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no table; it is no fairseq checkpoint of a Conformer.")
    return content


def _check_records(path: Path) -> None:
    """Refuse records that claim to be larger than the file, as compressed ones can.

    Torch writes none, and would map their compressed bytes as weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except Exception as error:  # a damaged file raises many kinds
        raise _damaged(path, error) from error
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED:
            raise UserError(
                f"{path} is compressed, as torch writes none; save it again with torch.save."
            )
    if sum(max(record.file_size, record.compress_size) for record in records) > path.stat().st_size:
        raise _damaged(path, ValueError("its records claim to be larger than the file"))


def _damaged(path: Path, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{path} is damaged ({reason}); download it again.")


def _is_stored(values: torch.Tensor) -> bool:
    """Return whether a tensor is plain numbers, all in the file.

    One number can stand for a tensor of any shape, and some kinds have a shape alone.
    """
    plain = values.layout == torch.strided and not values.is_quantized
    return (
        plain and values.device.type == "cpu" and values.nbytes <= values.untyped_storage().nbytes()
    )


def _settings(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the model's hyperparameters, from the newer settings or the older."""
    newer = _table(content.get("cfg"))
    for settings in (_table(newer.get("model")), newer, _table(content.get("args"))):
        if "decoder_attention_heads" in settings:
            return settings
    raise UserError(
        f"{path} has no settings of the model ('decoder_attention_heads' and others), neither in "
        "'cfg' nor in 'args'; use the checkpoint as training wrote it."
    )


def _table(settings: Any) -> dict[str, Any]:
    """Return settings by name; none where there is no such thing."""
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    if not isinstance(settings, Mapping):
        return {}
    return {str(name): value for name, value in settings.items()}


def _at_least_single(values: torch.Tensor) -> torch.Tensor:
    # Half precision is for storage; passes are lowered by autocast, where that is safe.
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
