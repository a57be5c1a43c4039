"""Reading Whisper weights in the format of CTranslate2 (``model.bin``).

The file is little-endian: format version, name and revision of the specification, then every
variable with its name, shape, type and data, then aliases (names that share a variable's data).
Sizes in it are checked against the file before anything is read or allocated. Quantised weights are
integers, with the factor that they were multiplied by in a variable of its own.
"""

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from s2txai.errors import UserError

_VERSION = 6
_SPECIFICATION = ("WhisperSpec", 3)
_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2", 5: "<u2"}
_BFLOAT16 = 5  # which NumPy has not: the upper half of a float32
_SCALE = "_scale"  # ends the name of a quantised variable's factor
_MAX_DIMENSIONS = 8  # Whisper has 3 at most; NumPy would refuse more than 64


def read_variables(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all variables of a ``model.bin``.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        From name (``encoder/layer_0/self_attention/linear_0/weight``) to array, in the stored type
        (float32, float16, int8, int16 or int32; float32 for bfloat16). An alias gives the very
        array it stands for.

    Raises
    ------
    UserError
        If the file is missing, cut short, holds another kind of model, or is malformed.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).read()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); fetch the model again."
        ) from error


def dequantise(variables: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return variables with quantised weights multiplied out, float32, and without their scales.

    A weight ``w`` is stored as the integers nearest to ``w * scale``: int8 with a scale for each
    row, the first dimension, int16 with one for all.

    Raises
    ------
    ValueError
        If integers have no scale, a scale has no integers or another number of rows, or is not
        positive and finite.
    """
    weights = {name: array for name, array in variables.items() if not name.endswith(_SCALE)}
    scales = {name: array for name, array in variables.items() if name.endswith(_SCALE)}
    for name, scale in scales.items():
        weight = variables.get(name.removesuffix(_SCALE))
        if weight is None or weight.dtype.kind != "i":
            raise ValueError(f"{name} is the scale of no integers")
        factor = scale.astype(np.float32)
        if scale.dtype.kind != "f" or not (np.isfinite(factor) & (factor > 0)).all():
            raise ValueError(f"{name} is no positive scale")
        if scale.size not in (1, len(weight)) or scale.ndim > 1:
            raise ValueError(f"{name} has {scale.size} factors for {len(weight)} rows")
        rows = factor.reshape(-1, *[1] * (weight.ndim - 1))
        product = weight.astype(np.float32) / rows
        # An alias of a weight stands for its scale as well.
        weights.update({alias: product for alias, array in weights.items() if array is weight})
    for name, array in weights.items():
        if array.dtype.kind == "i" and array.ndim:
            raise ValueError(f"{name} holds integers without a scale")
    return weights


class _Reader:
    """A pass over one file that counts the bytes that remain."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._remaining = os.fstat(file.fileno()).st_size

    def read(self) -> dict[str, npt.NDArray[Any]]:
        self._check_header()
        variables: dict[str, npt.NDArray[Any]] = {}
        for _ in range(self._number("<I")):
            self._add(variables, self._text(), self._array())
        stored = dict(variables)
        for _ in range(self._number("<I")):
            alias, name = self._text(), self._text()
            if name not in stored:
                raise self._malformed(f"alias '{alias}' stands for the unknown variable '{name}'")
            self._add(variables, alias, stored[name])
        if self._remaining:
            raise self._malformed(f"{self._remaining} bytes follow its end")
        return variables

    def _check_header(self) -> None:
        version = self._number("<I")
        if version != _VERSION:
            raise UserError(
                f"{self._path} is no CTranslate2 model of format version {_VERSION} (it begins "
                f"with {version}); convert the model with a current CTranslate2."
            )
        specification = (self._text(), self._number("<I"))
        if specification != _SPECIFICATION:
            actual, expected = (
                f"{name} revision {number}" for name, number in (specification, _SPECIFICATION)
            )
            raise UserError(
                f"{self._path} holds a model of kind {actual}, but only {expected} can be read; "
                "convert a Whisper model with a current CTranslate2."
            )

    def _add(
        self, variables: dict[str, npt.NDArray[Any]], name: str, array: npt.NDArray[Any]
    ) -> None:
        if name in variables:
            raise self._malformed(f"the name '{name}' occurs twice")
        variables[name] = array

    def _array(self) -> npt.NDArray[Any]:
        n_dimensions = self._number("<B")
        if n_dimensions > _MAX_DIMENSIONS:
            raise self._malformed(f"an array has {n_dimensions} dimensions")
        shape = [self._number("<I") for _ in range(n_dimensions)]
        code = self._number("<B")
        if code not in _DTYPES:
            raise self._malformed(
                f"an array has the type {code}, which is none of "
                "float32, int8, int16, int32, float16 and bfloat16"
            )
        dtype = np.dtype(_DTYPES[code])
        n_bytes = self._number("<I")
        # Python's integers do not overflow, so huge dimensions cannot pass for a small product.
        if n_bytes == 0 or math.prod(shape) * dtype.itemsize != n_bytes:
            raise self._malformed(f"an array of shape {shape} and type {dtype} has {n_bytes} bytes")
        stored = np.frombuffer(bytearray(self._bytes(n_bytes)), dtype=dtype).reshape(shape)
        if code == _BFLOAT16:
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(dtype.newbyteorder("="), copy=False)

    def _text(self) -> str:
        data = self._bytes(self._number("<H"))
        if not data.endswith(b"\0"):
            raise self._malformed("a name does not end in NUL")
        try:
            return data[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._malformed("a name is not UTF-8 text") from error

    def _number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]
        return value

    def _bytes(self, count: int) -> bytes:
        if count > self._remaining:
            raise self._malformed(f"it ends {count - self._remaining} bytes too early")
        self._remaining -= count
        return self._file.read(count)

    def _malformed(self, what: str) -> UserError:
        return UserError(
            f"{self._path} is no valid CTranslate2 model: {what}; fetch the model again."
        )
