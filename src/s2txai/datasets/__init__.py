"""Data sets: manifests and corpora of recorded speech, and the tasks of models on them."""

from s2txai.datasets.absent import absent_utterances, is_absent
from s2txai.datasets.alignment import Word, read_alignment
from s2txai.datasets.formats import FORMATS, read_dataset
from s2txai.datasets.manifest import Diacritics, Utterance, read_manifest, reference, select, shards
from s2txai.datasets.tasks import Task, parse_task

__all__ = [
    "FORMATS",
    "Diacritics",
    "Task",
    "Utterance",
    "Word",
    "absent_utterances",
    "is_absent",
    "parse_task",
    "read_alignment",
    "read_dataset",
    "read_manifest",
    "reference",
    "select",
    "shards",
]
