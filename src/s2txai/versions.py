"""Versions of the algorithms behind each step, light enough to import while Snakemake plans.

A step whose numbers change for the same input gets the next version: stored results of the old one
are then computed again, while an edited comment costs nothing.
"""

ALGORITHM_VERSIONS = {
    "decode": 1,
    "attention": 1,
    "smx": 1,
    "smh": 1,
    "aggregate": 1,
    "correlate": 1,
    "deletion": 1,
    "score": 1,
    "report": 2,
}
