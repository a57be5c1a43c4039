"""Reading result files of the format version before this one.

No number differs between the two; names do. An upgrade renames them in what was read and leaves the
file as it is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def from_version_1(arrays: Arrays, meta: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Return arrays and meta of a file of version 1 under the names of version 2.

    The role ``prompt`` became ``forced``, and the parameter ``n_steps`` of integrated gradients,
    the points of the integral, became ``n_points``; files of later steps repeat that parameter.
    """
    roles = arrays.get("roles")
    if roles is not None and roles.dtype.kind == "U" and "prompt" in roles:
        # Both names have six characters, so the type of the array stays.
        arrays = {**arrays, "roles": np.where(roles == "prompt", "forced", roles)}
    parameters = meta.get("parameters")
    if isinstance(parameters, Mapping):
        nested = {name: _with_points(value) for name, value in parameters.items()}
        meta = {**meta, "parameters": _with_points(nested)}
    return arrays, meta


def _with_points(parameters: Any) -> Any:
    """Rename ``n_steps`` in a table of parameters; a single value stays as it is."""
    if not isinstance(parameters, Mapping):
        return parameters
    return {"n_points" if name == "n_steps" else name: value for name, value in parameters.items()}
