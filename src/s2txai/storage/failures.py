"""Utterances that a step could not process: a file each, beside the results of the others.

In a shard's directory every utterance has either ``{id}.npz`` or ``{id}.failure.json``. A step
leaves out what an earlier one could not process and passes its record on, so that the last step's
directories name all failures of a run.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from s2txai.errors import UserError
from s2txai.storage.artifacts import replacing

LONGEST_MESSAGE = 500  # characters; what a library says of an error may be pages


@dataclass(frozen=True)
class Failure:
    """Why an utterance is not among the results.

    Attributes
    ----------
    utterance
        Its id.
    step
        The first that could not process it.
    message
        What was wrong, in one line.
    """

    utterance: str
    step: str
    message: str

    @classmethod
    def of(cls, utterance: str, step: str, error: Exception) -> "Failure":
        """Return what an error says."""
        # A library's message is useless without its exception type.
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        message = " ".join(f"{kind}{error}".split())
        return cls(utterance, step, message[:LONGEST_MESSAGE])


def record_path(directory: Path, utterance: str) -> Path:
    """Return the file in a shard's directory that says why it lacks an utterance."""
    return Path(directory) / f"{utterance}.failure.json"


def record(failure: Failure, directory: Path) -> None:
    """Write a failure into a shard's directory, all or nothing."""
    with replacing(record_path(directory, failure.utterance)) as partial:
        partial.write_text(json.dumps(asdict(failure), indent=1) + "\n", encoding="utf-8")


def failures(directory: Path, ids: Iterable[str]) -> list[Failure]:
    """Return what a shard's directory says of those of its utterances that failed.

    Raises
    ------
    UserError
        If a record cannot be read.
    """
    paths = (record_path(directory, utterance) for utterance in ids)
    return [_read(path) for path in paths if path.is_file()]


def _read(path: Path) -> Failure:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Failure(**{name: str(value) for name, value in fields.items()})
    # JSON of another shape, or too deep.
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete its directory and run the workflow again."
        ) from error


def failures_where_met(
    folder: Path, shards: Mapping[str, Iterable[str]], steps: Mapping[str, str]
) -> list[Failure]:
    """Return the failures of a run that lie where they were met.

    What was passed on does not count: the step may since have processed the utterance.

    Parameters
    ----------
    folder
        Of the run.
    shards
        Ids of the utterances of each shard.
    steps
        From the folder of a step within that of the run to the step's name.
    """
    return [
        failure
        for name, step in steps.items()
        for shard, ids in shards.items()
        for failure in failures(folder / name / shard, ids)
        if failure.step == step
    ]


def first_of_each(records: Iterable[Failure]) -> dict[str, Failure]:
    """Return the first failure of each utterance by its id: steps side by side may both fail."""
    first: dict[str, Failure] = {}
    for failure in records:
        first.setdefault(failure.utterance, failure)
    return first


def pass_on(ids: Sequence[str], inputs: Iterable[Path], output: Path) -> list[str]:
    """Return the utterances that no earlier step failed on; pass on the records of the others.

    Parameters
    ----------
    ids
        Of the shard.
    inputs
        Directories of the shard at earlier steps.
    output
        Its directory at this step.
    """
    records = first_of_each(failure for folder in inputs for failure in failures(folder, ids))
    for failure in records.values():
        record(failure, output)
    return [utterance for utterance in ids if utterance not in records]
