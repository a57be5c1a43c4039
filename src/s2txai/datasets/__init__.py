"""Data sets: manifests of recorded speech, and the tasks that models perform on them."""

from s2txai.datasets.alignment import Word, read_alignment
from s2txai.datasets.manifest import Diacritics, Utterance, read_manifest, reference, select, shards
from s2txai.datasets.tasks import Task, parse_task

__all__ = [
    "Diacritics",
    "Task",
    "Utterance",
    "Word",
    "parse_task",
    "read_alignment",
    "read_manifest",
    "reference",
    "select",
    "shards",
]
