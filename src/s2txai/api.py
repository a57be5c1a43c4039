"""From a recording to maps in a few lines of Python, by the code of the workflow's steps.

Nothing here needs Snakemake, and no file is written unless it is asked for.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from s2txai.datasets import parse_task
from s2txai.datasets.audio import at_sampling_rate, audio_sha256, read_audio
from s2txai.errors import UserError
from s2txai.hashing import fingerprint
from s2txai.models import loading
from s2txai.models.base import Model
from s2txai.models.decoding import AXES as DECODE_AXES
from s2txai.models.decoding import UNITS as DECODE_UNITS
from s2txai.models.decoding import decode
from s2txai.models.handle import folder_sha256
from s2txai.models.options import read_options
from s2txai.saliency.aggregation import AGGREGATIONS, ATTENTION_KINDS, attention_maps
from s2txai.saliency.attention import AXES as ATTENTION_AXES
from s2txai.saliency.attention import UNITS as ATTENTION_UNITS
from s2txai.saliency.attention import attention
from s2txai.saliency.correlation import correlation, is_constant
from s2txai.saliency.design import STATE_VALUE, MaskDesign
from s2txai.saliency.engine import BatchSize
from s2txai.saliency.heard import Heard
from s2txai.saliency.pooling import POOLINGS, pool
from s2txai.saliency.reliability import ceiling, half_correlation, half_maps, spearman_brown
from s2txai.saliency.smh import smh
from s2txai.saliency.smx import smx
from s2txai.saliency.statistics import Statistics, heatmap
from s2txai.storage.artifacts import load, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Audio: TypeAlias = str | Path | npt.ArrayLike
Array: TypeAlias = npt.NDArray[Any]

# Called with a step, the masks of it that are finished, and all of them.
OnProgress: TypeAlias = Callable[[str, int, int], None]

_SHORT = {"smx": "smx_avg2d"}

# A row that is constant in one of these maps is left out of all correlations, so that they can be
# compared: the maps of the default configuration.
_COMPARED = ("smx_avg2d", "smx_max2d", "smh")

# Parts of the names of one layer and of one head, the word included.
_INDICES = {"layer": 2, "head": 3}


def load_model(
    model: str | Path,
    family: str | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    options: Mapping[str, Any] | None = None,
) -> Model:
    """Load a model.

    Parameters
    ----------
    model
        A folder, or in a checkout of the project a name of ``config/models.yaml``, whose files are
        fetched if they are not there yet.
    family
        A name of :data:`s2txai.models.families.FAMILIES`; None: recognised from the folder.
    device
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    precision
        ``auto`` (float16 on a GPU, else float32), ``float32``, ``tf32``, ``float16``, ``bfloat16``.
    options
        Of the family; see ``docs/models.md``.

    Returns
    -------
    Model
        See :mod:`s2txai.models.base`. No setting of the process is changed.

    Raises
    ------
    UserError
        If there is no such folder or name, its family cannot be recognised, or it cannot be loaded.
    """
    folder = Path(model)
    if not folder.is_dir():
        from s2txai.study.checkout import model_of_checkout

        entry, folder = model_of_checkout(str(model))
        family = family or entry["family"]
    return loading.load_model(
        folder,
        family,
        device=device,
        precision=precision,
        # A folder that was fetched keeps the options of its entry.
        options=read_options(folder) if options is None else options,
    )


def explain(
    model: Model | str | Path,
    audio: Audio,
    task: str,
    *,
    sampling_rate: int | None = None,
    beam: int = 5,
    n_segments: Sequence[int] = (50, 100),
    n_masks: int = 160,
    n_smh_masks: int = 1000,
    p: float = 0.5,
    encoder: str = "auto",
    seed: int = 0,
    batch_size: int | str = "auto",
    utterance: str = "",
    progress: OnProgress | None = None,
) -> "Explanation":
    """Transcribe or translate a recording, and explain the result.

    The steps decode, attention, SMX and SMH of the workflow: with the same ``seed``, ``utterance``,
    masks, batches, device and threads it gives the bits that the workflow writes.

    Parameters
    ----------
    model
        Of :func:`load_model`, or what that function takes.
    audio
        A file that libsndfile reads, or samples [samples] or [samples, channels].
    task
        ``asr-<language>`` or ``st-<source>-<target>``.
    sampling_rate
        Of an array, in Hz.
    beam
        Width of the beam search.
    n_segments
        Levels of segmentation of the input, in segments for 500 frames.
    n_masks
        Masks of the input, dealt over the levels. 160 give a first impression; publish with 20,000
        and the paper's segments, (2000, 2500, 3000).
    n_smh_masks
        Masks of the encoder's output.
    p
        Probability that a mask occludes a segment.
    encoder
        ``auto``: masks of the input are scored by a cheaper encoder where the model has one and a
        pilot finds it close enough, and exact scores of some correct the mean (with 160 masks of
        two levels no mask is checked: ``docs/definitions.md``); or ``exact``.
    seed
        Of the masks.
    batch_size
        Masks for one forward pass, or ``auto``: what fits into memory.
    utterance
        A name, part of the key of the masks; the utterance's id gives the masks of the workflow.
    progress
        Called while masks are computed.

    Raises
    ------
    UserError
        If the model cannot perform the task, the audio cannot be used, or memory does not hold one
        forward pass.
    """
    if isinstance(model, str | Path):
        model = load_model(model)
    designs = {
        "smx": MaskDesign(n_masks, n_segments=tuple(n_segments), p=p, seed=seed, encoder=encoder),
        "smh": MaskDesign(n_smh_masks, occluded_value=STATE_VALUE, p=p, seed=seed),
    }
    BatchSize(batch_size)  # refused before long work
    samples = _samples(audio, sampling_rate, model.facts.sampling_rate)
    decoded = decode(model, samples, parse_task(task), beam=beam)
    heard = Heard.of(decoded)
    sums = {
        step: perturb(
            model, heard, designs[step], utterance=utterance, batch_size=batch_size,
            on_batch=_on_batch(step, designs[step], progress),
        )
        for step, perturb in (("smx", smx), ("smh", smh))
    }  # fmt: skip
    return Explanation(
        decoded=decoded,
        attention=attention(model, heard),
        smx_statistics=sums["smx"],
        smh_statistics=sums["smh"],
        parameters={
            "utterance": utterance,
            "task": task,
            "model_sha256": None if model.directory is None else _model_sha256(model.directory),
            "audio_sha256": _audio_sha256(audio, sampling_rate),
            "beam": beam,
            # As JSON has them: lists in place of tuples.
            **{step: json.loads(json.dumps(asdict(design))) for step, design in designs.items()},
        },
    )


def _samples(audio: Audio, rate: int | None, sampling_rate: int) -> npt.NDArray[np.float32]:
    """Return samples [samples] at the model's sampling rate."""
    if isinstance(audio, str | Path):
        if rate is not None:
            raise UserError(f"{audio} states its own sampling rate; leave 'sampling_rate' out.")
        return read_audio(Path(audio), sampling_rate)
    if rate is None:
        raise UserError("An array of samples needs its sampling_rate, in Hz; or give a file.")
    return at_sampling_rate(np.asarray(audio), rate, sampling_rate)


def _audio_sha256(audio: Audio, rate: int | None) -> str:
    """Return a hash of a file, as the workflow has it, or of samples and their rate."""
    if isinstance(audio, str | Path):
        return audio_sha256(Path(audio))
    samples = np.ascontiguousarray(audio)
    return fingerprint(
        samples=hashlib.sha256(samples.tobytes()).hexdigest(),
        kind=str(samples.dtype), shape=samples.shape, rate=rate,
    )  # fmt: skip


def _model_sha256(directory: Path) -> str:
    states = [(path.name, path.stat()) for path in sorted(directory.iterdir())]
    return _hash_model(
        directory, tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    )


# Weights are gigabytes: read once as long as no file changes.
@cache
def _hash_model(directory: Path, _states: tuple[tuple[str, int, int], ...]) -> str:
    return folder_sha256(directory)


def _on_batch(
    step: str, design: MaskDesign, progress: OnProgress | None
) -> Callable[[int, Callable[[], Statistics]], None] | None:
    if progress is None:
        return None
    levels = max(1, len(design.n_segments))
    total, finished = design.n_masks // levels * levels, 0

    def on_batch(n_new: int, _: Callable[[], Statistics]) -> None:
        nonlocal finished
        finished += n_new
        progress(step, finished, total)

    return on_batch


@dataclass(frozen=True, eq=False)
class Explanation:
    """A hypothesis, what the model attends to for each of its tokens, and what it uses.

    Shapes: I predicted tokens, T' encoder steps over speech, T input frames, F bins, L decoder
    layers, H heads.

    Attributes
    ----------
    decoded
        Arrays of the step ``decode``, see ``docs/results.md``: features, tokens, pieces, ...
    attention
        Arrays of the step ``attention``: ``cross_attention`` [L, H, I, T'], ...
    smx_statistics, smh_statistics
        Sums over the masks.
    parameters
        How it was computed.
    """

    decoded: Mapping[str, Array]
    attention: Mapping[str, Array]
    smx_statistics: Statistics
    smh_statistics: Statistics
    parameters: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The hypothesis."""
        return str(self.decoded["text"])

    @property
    def tokens(self) -> list[int]:
        """Ids of the I predicted tokens."""
        return [int(token) for token in self.decoded["tokens"]]

    @property
    def pieces(self) -> list[str]:
        """Text of each predicted token, leading space included."""
        return [str(piece) for piece in self.decoded["pieces"]]

    @property
    def cross_attention(self) -> npt.NDArray[np.float32]:
        """Attention of every layer and head, float32 [L, H, I, T']."""
        return np.asarray(self.attention["cross_attention"])

    @property
    def heard(self) -> Heard:
        """Input and hypothesis, as the functions of ``saliency`` take them."""
        return Heard.of(self.decoded)

    def smx(self, pooling: str | None = "avg2d") -> npt.NDArray[np.float32]:
        """Return the saliency of the input, in nats.

        Parameters
        ----------
        pooling
            A name of :data:`s2txai.saliency.pooling.POOLINGS` brings it to encoder steps; None:
            full resolution.

        Returns
        -------
        ndarray
            float32 [I, T'], or [I, T, F].
        """
        if pooling is None:
            return heatmap(self.smx_statistics).astype(np.float32)
        POOLINGS[pooling]  # an unknown name is refused with the list of names
        return self._map(f"smx_{pooling}")

    def smh(self) -> npt.NDArray[np.float32]:
        """Return the saliency of the encoder's output, float32 [I, T'], in nats."""
        return self._map("smh")

    def rho(
        self,
        saliency: str,
        attention: str = "ca_mean",
        *,
        metric: str = "pearson",
        normalise: str = "token",
    ) -> float:
        """Return how far attention agrees with a saliency map.

        The defaults are this project's headline: each token's row standardised over the steps, then
        one Pearson correlation. Rows that are constant in ``smx_avg2d``, ``smx_max2d`` or ``smh``
        are left out of all.

        Parameters
        ----------
        saliency
            ``smx_<pooling>`` or ``smh``; ``smx`` is short for ``smx_avg2d``.
        attention
            ``ca_mean`` (mean over layers of the mean over heads), ``ca_layer_<l>`` or
            ``ca_head_<l>_<h>``, counted from 0; ``vn_`` and ``ro_`` in place of ``ca_`` for
            value-norm weighted and rolled-out attention.
        metric, normalise
            Names of :data:`s2txai.saliency.correlation.METRICS` and ``NORMALISERS``.

        Returns
        -------
        float
            NaN where no row is left or nothing varies.
        """
        rows = self._rows
        maps = self._attention(attention)[rows], self._map(self._name(saliency))[rows]
        return correlation(*maps, metric=metric, normalise=normalise).value

    def reliability(
        self, saliency: str, *, metric: str = "pearson", normalise: str = "token"
    ) -> float:
        """Return how well a saliency map reproduces itself from other masks, in [0, 1].

        Spearman-Brown of the correlation between maps of half of the masks; exact for linear maps
        (``smx_avg2d``, ``smh``) and Pearson, approximate for maxima, NaN for other metrics.
        """
        if metric != "pearson":
            return float("nan")
        return spearman_brown(self._half_correlation(saliency, metric, normalise))

    def ceiling(self, saliency: str, *, metric: str = "pearson", normalise: str = "token") -> float:
        """Return the largest :meth:`rho` that the noise of a saliency map allows.

        The root of :meth:`reliability`; for other metrics than Pearson the metric of half-maps.
        """
        if metric != "pearson":
            return self._half_correlation(saliency, metric, normalise)
        return ceiling(self.reliability(saliency, metric=metric, normalise=normalise))

    def plot(self, token: int | None = None) -> "Figure":
        """Draw the input with attention, SMX and SMH: of one token, or of all.

        Parameters
        ----------
        token
            Row, counted from 0; negative ones from the end. None: all rows as maps.

        Raises
        ------
        UserError
            If there is no such row.
        """
        from s2txai.report.token import token_figure, tokens_figure

        n_rows = len(self.tokens)
        if token is not None and not -n_rows <= token < n_rows:
            raise UserError(f"There is no token {token}; choose 0 to {n_rows - 1}.")
        maps = {"ca_mean": self._attention("ca_mean"), "smx_avg2d": self.smx(), "smh": self.smh()}
        frame_shift = float(str(self.decoded["frame_shift"]))
        if token is None:
            return tokens_figure(self.decoded, maps, frame_shift=frame_shift)
        return token_figure(self.decoded, maps, token, frame_shift=frame_shift)

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz``, which :meth:`load` reads and ``numpy.load`` opens."""
        arrays = {
            **{f"decode.{name}": values for name, values in self.decoded.items()},
            **{f"attention.{name}": values for name, values in self.attention.items()},
            **{f"smx.{name}": values for name, values in self.smx_statistics.arrays().items()},
            **{f"smh.{name}": values for name, values in self.smh_statistics.arrays().items()},
        }
        tables = {
            "decode": (DECODE_AXES, DECODE_UNITS),
            "attention": (ATTENTION_AXES, ATTENTION_UNITS),
            "smx": (self.smx_statistics.axes, self.smx_statistics.UNITS),
            "smh": (self.smh_statistics.axes, self.smh_statistics.UNITS),
        }
        axes, units = (
            {
                f"{step}.{name}": value
                for step, table in tables.items()
                for name, value in table[position].items()
                if f"{step}.{name}" in arrays
            }
            for position in (0, 1)
        )
        meta = {
            "step": "explanation",
            "utterance": self.parameters["utterance"],
            "task": self.parameters["task"],
            "model_sha256": self.parameters["model_sha256"],
            "audio_sha256": self.parameters["audio_sha256"],
            "parameters": dict(self.parameters),
            "axes": axes,
            "units": units,
        }
        save(Path(path), arrays, meta)

    @classmethod
    def load(cls, path: str | Path) -> "Explanation":
        """Read what :meth:`save` wrote.

        Raises
        ------
        UserError
            If the file is missing, damaged or of something else.
        """
        artifact = load(Path(path), "explanation")

        def part(step: str) -> dict[str, Array]:
            return {
                name.removeprefix(f"{step}."): values
                for name, values in artifact.arrays.items()
                if name.startswith(f"{step}.")
            }

        return cls(
            decoded=part("decode"),
            attention=part("attention"),
            smx_statistics=Statistics.from_mapping(part("smx")),
            smh_statistics=Statistics.from_mapping(part("smh")),
            parameters=artifact.meta["parameters"],
        )

    @cached_property
    def _cache(self) -> dict[str, Array]:
        return {}

    def _map(self, name: str) -> Array:
        """Return a saliency map at encoder steps, as the step ``aggregate`` has it."""
        if name not in self._cache:
            statistics, pooling = self._sums(name)
            cells = heatmap(statistics)
            steps = pool(cells, pooling, statistics.subsampling, statistics.n_steps)
            self._cache[name] = steps.astype(np.float32)
        return self._cache[name]

    def _halves(self, name: str) -> Array:
        """Return [3, 2, I, T'], the map of half of the masks in each way to deal the folds."""
        key = f"{name}_halves"
        if key not in self._cache:
            halves = half_maps(*self._sums(name), heatmap)
            self._cache[key] = halves.astype(np.float32)
        return self._cache[key]

    def _sums(self, name: str) -> tuple[Statistics, str]:
        """Return the statistics of a map, and how its cells become encoder steps."""
        if name == "smh":
            # A step has one cell there, so that its mean is the cell itself.
            return self.smh_statistics, "avg2d"
        return self.smx_statistics, name.removeprefix("smx_")

    @cached_property
    def _rows(self) -> Array:
        """Bool [I]: rows that are constant in none of the compared maps."""
        return np.asarray(~np.any([is_constant(self._map(name)) for name in _COMPARED], axis=0))

    def _name(self, saliency: str) -> str:
        name = _SHORT.get(saliency, saliency)
        names = ("smh", *(f"smx_{pooling}" for pooling in POOLINGS))
        if name not in names:
            raise UserError(f"Unknown map '{saliency}'. Choose one of: smx, {', '.join(names)}.")
        return name

    def _half_correlation(self, saliency: str, metric: str, normalise: str) -> float:
        halves = self._halves(self._name(saliency))[:, :, self._rows]
        return half_correlation(halves, metric=metric, normalise=normalise)

    def _attention(self, name: str) -> Array:
        """Return the map [I, T'] that a name of attention stands for."""
        kind, _, part = name.partition("_")
        array = ATTENTION_KINDS.get(kind, "")
        maps = attention_maps(self.attention[array], kind) if array in self.attention else {}
        if part in AGGREGATIONS and name in maps:
            return np.asarray(maps[name])
        indices = part.split("_")
        try:
            if len(indices) != _INDICES[indices[0]]:
                raise IndexError(name)
            whole = maps[f"{kind}_{indices[0]}"]
            return np.asarray(whole[tuple(int(index) for index in indices[1:])])
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"Unknown attention '{name}'. Choose ca_mean, ca_layer_<l> or ca_head_<l>_<h>, "
                f"of {len(self.cross_attention)} layers with {self.cross_attention.shape[1]} heads."
            ) from error
