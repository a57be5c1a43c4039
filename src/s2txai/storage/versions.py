"""Versions of the algorithms behind each step, light enough to import while Snakemake plans.

A step whose numbers change for the same input gets the next version: stored results of the old one
are then computed again, while an edited comment costs nothing.
"""

from s2txai.saliency.methods import METHODS

FIRST_VERSION = 1
"""Of a gradient method that an extension adds; the hash of its file distinguishes its versions."""

ALGORITHM_VERSIONS = {
    "decode": 3,
    "attention": 2,
    "smx": 3,
    "smh": 3,
    "grad": 1,
    "input_x_gradient": 1,
    "integrated_gradients": 1,
    "aggregate": 4,
    "correlate": 8,
    "deletion": 2,
    "sensitivity": 2,
    "timestamps": 3,
    "heads": 3,
    "comparisons": 1,
    "score": 3,
    "report": 8,
}


def version_of(step: str) -> int:
    """Return the version of a step or of a gradient method.

    Raises
    ------
    KeyError
        If there is no such step or method.
    """
    if step in METHODS:
        return ALGORITHM_VERSIONS.get(step, FIRST_VERSION)
    return ALGORITHM_VERSIONS[step]
