"""Data sets: manifests of recorded speech, and the tasks that models perform on them."""

from s2txai.datasets.manifest import Diacritics, Utterance, read_manifest, reference, select, shards
from s2txai.datasets.tasks import Task, parse_task

__all__ = [
    "Diacritics",
    "Task",
    "Utterance",
    "parse_task",
    "read_manifest",
    "reference",
    "select",
    "shards",
]
