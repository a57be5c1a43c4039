"""What the steps that run a model have in common."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch

from s2txai.errors import UserError, UtteranceError
from s2txai.hashing import fingerprint
from s2txai.log import logger
from s2txai.models.handle import ModelHandle
from s2txai.models.memory import is_out_of_memory, smaller_batch
from s2txai.models.process import configure_process
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.statistics import MapOfFolds, Statistics
from s2txai.storage.artifacts import Artifact, load, save
from s2txai.storage.failures import Failure, record, record_path
from s2txai.storage.provenance import describe
from s2txai.storage.store import Store, link
from s2txai.storage.versions import version_of
from s2txai.study.choices import extensions_of_work

# Whether the other utterances are done when one cannot be.
OnFailure = Literal["continue", "stop"]

# What numbers that do not fit raise, in Python, NumPy and torch. Not OSError, of a disk that is
# full; nor what only a mistake in a program raises, such as NameError.
_OF_NUMBERS = (RuntimeError, ValueError, LookupError, ArithmeticError, AssertionError)
# After these a GPU does nothing more for this process.
_OF_DEVICE = ("CUDA error", "cuDNN error", "CUBLAS_STATUS")


@dataclass(frozen=True)
class Workplace:
    """Where a step of a shard does its work.

    Attributes
    ----------
    model
        Loaded only if something is missing from the store.
    store
        Finished work of earlier runs.
    output
        Directory that gets one ``<utterance>.npz`` for each utterance.
    on_failure
        What follows when an utterance cannot be done; see :class:`Attempts`.
    """

    model: ModelHandle
    store: Store
    output: Path
    on_failure: OnFailure = "continue"

    @classmethod
    def open(
        cls,
        family: str,
        directory: Path,
        output: Path,
        *,
        compute: Mapping[str, Any],
        threads: int,
        on_failure: OnFailure,
        compile: bool = False,
        store: Path,
    ) -> Self:
        """Return the workplace of a job, and set up its process.

        Parameters
        ----------
        family, directory
            The model's code and files.
        output
            Directory of the shard's results.
        compute
            ``device`` and ``precision`` of the configuration.
        threads
            CPU threads.
        on_failure
            Of the configuration.
        compile
            Whether to compile the encoder, which pays only where it runs thousands of times.
        store
            Folder of the utterance store.
        """
        model = ModelHandle(
            family,
            directory,
            device=compute["device"],
            precision=compute["precision"],
            compile=compile,
        )
        configure_process(precision=model.precision, threads=threads)
        return cls(model, Store(store), Path(output), on_failure)


class Attempts:
    """The utterances of a shard, of which one that cannot be done does not stop the others.

    Its failure is recorded in place of its result (:mod:`s2txai.storage.failures`). A failure of
    the job is raised: a model that cannot be loaded, memory or disk that run out, files that do
    not belong together, an interrupt. So is an unexpected error that every utterance of several
    meets, which says more about the program or the model than about them.

    Parameters
    ----------
    step
        That is done.
    output
        Directory of the shard.
    on_failure
        ``stop`` raises the first failure instead of recording it.
    """

    def __init__(self, step: str, output: Path, on_failure: OnFailure = "continue") -> None:
        self._step, self._output, self._on_failure = step, Path(output), on_failure
        self._tried: set[str] = set()
        self._failed: dict[str, Exception] = {}

    @contextmanager
    def of(self, utterance: str) -> Iterator[None]:
        """Do some of the work on an utterance; an error that is its own is recorded."""
        self._tried.add(utterance)
        # Of another attempt, where the directory was not emptied in between.
        record_path(self._output, utterance).unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            if self._on_failure == "stop" or not _is_of_utterance(error):
                logger.error("%s: stopped at the utterance %s.", self._step, utterance)
                if is_out_of_memory(error):
                    smaller_batch(1, error)  # there is none
                raise
            self._failed[utterance] = error
            failure = Failure.of(utterance, self._step, error)
            record(failure, self._output)
            # Where an unexpected error comes from must be found out.
            trace = None if isinstance(error, UtteranceError) else error
            logger.warning(
                "%s %s failed, on with the others: %s",
                self._step, utterance, failure.message, exc_info=trace,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None or len(self._tried) < 2 or self._tried != self._failed.keys():
            return
        unexpected = [
            error for error in self._failed.values() if not isinstance(error, UtteranceError)
        ]
        if len(unexpected) == len(self._failed):
            logger.error(
                "%s: not one of %d utterances could be processed.", self._step, len(unexpected)
            )
            raise unexpected[0]


def _is_of_utterance(error: Exception) -> bool:
    """Return whether other utterances may be done in spite of an error."""
    if isinstance(error, UtteranceError):
        return True
    if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
        return False
    return isinstance(error, _OF_NUMBERS) and not any(
        message in str(error) for message in _OF_DEVICE
    )


def entry_path(
    place: Workplace, step: str, source: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Path:
    """Return the store's place for a step's work on one utterance.

    Its fingerprint holds what changes the numbers: source, parameters, precision, the version of
    the algorithm and the hashes of the extensions that have a part in it; neither shard nor batch
    nor the number of masks.
    """
    extensions = extensions_of_work(step, parameters, place.model.family)
    key = fingerprint(
        version=version_of(step),
        precision=place.model.precision,
        source=dict(source),
        parameters=dict(parameters),
        # Without extensions the fingerprint is that of earlier releases.
        **({"extensions": extensions} if extensions else {}),
    )
    return place.store.path(step, source["utterance"], key)


def stored_entry(
    place: Workplace, step: str, source: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Artifact | None:
    """Return what the store has of a step's work on one utterance; None if it has nothing.

    An entry that cannot be read, or is of other work, is moved aside with a warning: nothing in it
    is believed, and the work is done again. Arguments as for :func:`entry_path`.
    """
    entry = entry_path(place, step, source, parameters)
    if not entry.exists():
        return None
    try:
        artifact = load(entry, step)
        _check_work(artifact, source, with_precision(place, parameters))
    except UserError as error:
        aside = entry.with_name(f"{entry.name}.damaged")
        with suppress(FileNotFoundError):  # another job may have been faster
            entry.replace(aside)
        logger.warning(
            "%s is damaged or of other work, so the work is done again; the file is kept as %s.",
            entry, aside.name,
        )  # fmt: skip
        logger.debug("%s", error)
        return None
    return artifact


def _check_work(
    artifact: Artifact, source: Mapping[str, Any], parameters: Mapping[str, Any]
) -> None:
    """Refuse an entry that lies under a name that is not its own."""
    expected = {**source, "parameters": json.loads(json.dumps(parameters))}
    for key, value in expected.items():
        if artifact.meta.get(key) != value:
            raise UserError(f"{artifact.path} is of other work: its {key} differs.")


def with_precision(place: Workplace, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a result names."""
    return {**parameters, "precision": place.model.precision}


def keep(
    place: Workplace,
    step: str,
    source: Mapping[str, Any],
    parameters: Mapping[str, Any],
    *,
    axes: Mapping[str, list[str]],
    units: Mapping[str, str],
    compute: Callable[[], Mapping[str, np.ndarray]],
) -> Path:
    """Compute a step's arrays for one utterance unless the store has them; return the entry.

    ``axes`` and ``units`` may describe more arrays than are computed: not every model has all.

    Raises
    ------
    UtteranceError
        If numbers are NaN or infinite.
    """
    entry = entry_path(place, step, source, parameters)
    if stored_entry(place, step, source, parameters) is None:
        arrays = compute()
        check_finite(arrays, step)
        axes = {name: names for name, names in axes.items() if name in arrays}
        units = {name: unit for name, unit in units.items() if name in arrays}
        save(entry, arrays, describe(step, source, with_precision(place, parameters), axes, units))
    return entry


def check_finite(arrays: Mapping[str, np.ndarray], step: str) -> None:
    """Refuse numbers that no later step could use, before they are kept.

    Raises
    ------
    UtteranceError
        If an array holds NaN or infinity.
    """
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UtteranceError(
                f"The model's numbers are not finite on this input ('{name}' of {step}): in "
                "float16, set 'compute.precision' to bfloat16 or float32; else leave the utterance "
                "out."
            )


def measured_on_largest(measure: Callable[[Artifact], int], decoded: Sequence[Artifact]) -> int:
    """Return what ``measure`` finds for the utterance that needs most memory.

    For the next one where the model cannot do it; its error is raised when it is its turn.

    Parameters
    ----------
    measure
        Runs the model on an utterance.
    decoded
        ``decode`` artefacts.

    Raises
    ------
    Exception
        That of the smallest utterance, if the model can do none.
    """
    # Memory grows with frames times tokens.
    by_size = sorted(decoded, key=lambda shape: len(shape["features"]) * len(shape["tokens"]))
    smallest, *larger = by_size
    for artifact in reversed(larger):
        try:
            return measure(artifact)
        except Exception as error:
            if not _is_of_utterance(error):
                raise
    return measure(smallest)


def publish(place: Workplace, entry: Path, utterance: str) -> None:
    """Give an entry of the store its name among the step's results."""
    link(entry, place.output / f"{utterance}.npz")


def maps_of(artifact: Artifact, estimator: str) -> MapOfFolds:
    """Return the function that makes the map of some folds of an ``smx`` or ``smh`` artefact.

    Parameters
    ----------
    artifact
        With sums over masks.
    estimator
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS`.
    """
    statistics = Statistics.from_mapping(artifact.arrays)
    parameters = artifact.meta["parameters"]
    plan = MaskPlan(
        seed=parameters["seed"],
        utterance=artifact.meta["utterance"],
        names=tuple(artifact.meta["masks"]["segmentations"]),
        sizes=tuple(len(np.unique(segments)) for segments in statistics.segments),
        n_masks=tuple(statistics.n_masks.sum(axis=0).tolist()),
        p=parameters["p"],
    )
    return ESTIMATORS[estimator].prepare(statistics, plan)


def forced_of(decoded: Artifact) -> list[int]:
    """Return the tokens of a ``decode`` artefact that the model was made to say."""
    is_forced = decoded["roles"] == "forced"
    return list(decoded["tokens"][is_forced].tolist())
