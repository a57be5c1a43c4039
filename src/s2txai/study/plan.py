"""What a configuration asks for: which utterances go through which model and task.

Light enough to run whenever Snakemake plans: nothing here imports torch.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s2txai.datasets import (
    Diacritics,
    Task,
    Utterance,
    absent_utterances,
    is_absent,
    parse_task,
    read_alignment,
    read_dataset,
    reference,
    select,
    shards,
)
from s2txai.datasets.languages import bleu_fallback
from s2txai.errors import UserError, UtteranceError
from s2txai.hashing import file_sha256, fingerprint
from s2txai.models.abilities import check_abilities
from s2txai.models.families import FAMILIES
from s2txai.registry import did_you_mean
from s2txai.saliency.design import INPUT_VALUE
from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.methods import METHODS
from s2txai.study.choices import check_names
from s2txai.study.comet_check import check_comet
from s2txai.study.config import (
    check_config,
    check_datasets,
    check_models,
    check_task,
    load_datasets,
    load_models,
)
from s2txai.study.extensions import load_extensions
from s2txai.study.fetch_model import files_here, missing_folder, trusts_code

Key = tuple[str, str, str]  # dataset, model, task


@dataclass(frozen=True)
class Run:
    """One dataset through one model on one task.

    Attributes
    ----------
    dataset, model, task
        Names in the tree of results, and the parsed task.
    utterances
        Those of the dataset that take part, in its order.
    shards
        Ids of the utterances of each shard.
    diacritics
        ``folded`` where the references are written without.
    layers
        Decoder layers by whose attention cells are also deleted, as the configuration lists them.
    max_seconds
        Longest utterance that the model accepts; None for any.
    unusable
        From the ids of utterances whose recordings cannot be used to what is wrong with them.
    failed
        Utterances that were left out of the above, since a step could not do them.
    """

    dataset: str
    model: str
    task: Task
    utterances: tuple[Utterance, ...]
    shards: Mapping[str, list[str]]
    diacritics: Diacritics = "kept"
    layers: tuple[int, ...] = ()
    max_seconds: float | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)
    failed: tuple[Utterance, ...] = ()

    @property
    def key(self) -> Key:
        """Dataset, model and task as they stand in paths."""
        return self.dataset, self.model, self.task.name

    def shard(self, name: str) -> list[Utterance]:
        """Return the utterances of a shard."""
        ids = set(self.shards[name])
        return [utterance for utterance in self.utterances if utterance.id in ids]

    def aligned_only(self) -> "Run":
        """Return the run with no other utterances than those of :meth:`aligned`."""
        return self.only({utterance.id for utterance in self.aligned()})

    def only(self, ids: Collection[str]) -> "Run":
        """Return the run with no other utterances than these; its shards keep their names."""
        return replace(
            self,
            utterances=tuple(utterance for utterance in self.utterances if utterance.id in ids),
            shards={
                name: [utterance for utterance in shard if utterance in ids]
                for name, shard in self.shards.items()
            },
        )

    def audio_sha256(self, shard: str) -> str:
        """Return a hash of the audio of a shard.

        Changed audio under the same id is work to do again; another path to it is not.
        """
        return fingerprint(audio=[_audio_sha256(utterance) for utterance in self.shard(shard)])

    def aligned(self) -> list[Utterance]:
        """Return the utterances whose words can be timed: recognised, with an alignment.

        The words of a translation are said by nobody.
        """
        if self.task.kind != "asr":
            return []
        return [utterance for utterance in self.utterances if utterance.alignment]

    def alignments_sha256(self) -> str:
        """Return a hash of the boundaries that word timestamps are compared with."""
        return fingerprint(
            alignments=[
                [utterance.id, utterance.alignment_evidence, file_sha256(utterance.alignment)]
                for utterance in self.aligned()
                if utterance.alignment
            ]
        )

    def references_sha256(self) -> str:
        """Return a hash of the texts that hypotheses are scored against."""
        return fingerprint(texts=[reference(utterance, self.task) for utterance in self.utterances])


@dataclass(frozen=True)
class Study:
    """A configuration, checked and spelled out.

    Attributes
    ----------
    runs
        By dataset, model and task.
    models, datasets
        The entries that the runs use.
    designs
        Settings of ``smx`` for every other design of the perturbation, by a name that may stand in
        paths.
    methods
        Gradient methods that are computed.
    missing
        Sentences on models and corpora that must be downloaded before anything can run.
    """

    runs: Mapping[Key, Run]
    models: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, Mapping[str, Any]]
    designs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def unusable(self) -> list[str]:
        """A sentence for each run with recordings that cannot be used."""
        return [_unusable(run) for run in self.runs.values() if run.unusable]

    @property
    def remarks(self) -> list[str]:
        """A sentence for each target language whose BLEU lacks the tokeniser of first choice."""
        targets = dict.fromkeys(
            run.task.target for run in self.runs.values() if run.task.kind == "st"
        )
        return [sentence for language in targets if (sentence := bleu_fallback(language))]


def plan(
    config: Mapping[str, Any],
    root: Path,
    *,
    only: Key | None = None,
    check_recordings: bool = True,
) -> Study:
    """Check a configuration and spell out its runs.

    Parameters
    ----------
    config
        As Snakemake merged it from ``config/config.yaml`` and the command line.
    root
        The project's folder: registries are found there, and their paths are relative to it.
    only
        Spell out this run and read no dataset but its own; all runs if None.
    check_recordings
        Whether recordings and alignments are opened. A job leaves that out: they were checked when
        the study was planned, and whoever reads them checks them again.

    Raises
    ------
    UserError
        One line for each mistake: an unknown key, model, dataset or utterance, an impossible task,
        an unreadable manifest, missing audio; with ``on_failure: stop`` also audio that cannot be
        used, which else is an error only if it is all there is. Also if there is no run ``only``.
    """
    load_extensions(config, root)
    schemas = root / "workflow" / "schemas"
    check_config(config, schemas)
    check_names(config)
    _check_masks(config)
    designs = _designs(config)
    models, datasets = _tables(config, root, schemas)
    runs: dict[Key, Run] = {}
    for request in config["runs"]:
        for run in _runs(request, models, datasets, root, config, only):
            if run.key in runs:
                raise UserError(
                    f"config: runs ask twice for {'/'.join(run.key)}; put its utterances together."
                )
            runs[run.key] = _checked(run, config) if check_recordings else run
    if only is not None and not runs:
        raise UserError(f"config: no entry of 'runs' asks for {'/'.join(only)}; add it.")
    for name in {run.model: None for run in runs.values()}:
        _check_family(name, models[name])
    if check_recordings:
        _check_abilities(runs.values(), models, root)
    if "comet" in config and check_recordings:
        _check_comet(root / config["comet"], runs.values())
    used_models = {run.model: _rooted(models[run.model], root) for run in runs.values()}
    used_datasets = {run.dataset: datasets[run.dataset] for run in runs.values()}
    return Study(
        runs=runs,
        models=used_models,
        datasets=used_datasets,
        designs=designs,
        # In the order of the registry: another order in the configuration is the same study.
        methods=tuple(name for name in METHODS if name in config["gradient"]["methods"]),
        missing=(*_missing_models(used_models), *_missing_corpora(used_datasets, root)),
    )


def _tables(
    config: Mapping[str, Any], root: Path, schemas: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the models and the datasets of the project and of the configuration itself."""
    inline_models, inline_datasets = config.get("models", {}), config.get("datasets", {})
    if inline_models:
        check_models(inline_models, "config: models", schemas)
    if inline_datasets:
        check_datasets(inline_datasets, "config: datasets", schemas)
    models = load_models(root / "config" / "models.yaml", schemas) | inline_models
    datasets = load_datasets(root / "config" / "datasets.yaml", schemas) | inline_datasets
    return models, datasets


def _check_comet(checkpoint: Path, runs: Iterable[Run]) -> None:
    for run in runs:
        if run.task.kind == "st":
            check_comet(checkpoint, run.task, run.utterances)


def _missing_models(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"Model '{name}': {missing_folder(entry['source'])}"
        for name, entry in models.items()
        if "path" in entry["source"] and not Path(entry["source"]["path"]).is_dir()
    ]


def _missing_corpora(datasets: Mapping[str, Mapping[str, Any]], root: Path) -> list[str]:
    return [
        f"Dataset '{name}': no folder {root / entry['folder']}: {entry['download']} (Planned with "
        f"{entry['expect']['utterances']:,} utterances of {entry['expect']['seconds']:g} s in its "
        "place.)"
        for name, entry in datasets.items()
        if is_absent(entry, root)
    ]


def _check_family(model: str, entry: Mapping[str, Any]) -> None:
    try:
        family = FAMILIES[entry["family"]]
    except UserError as error:
        raise UserError(f"config: model '{model}': {error}") from error
    for option in entry.get("options", {}):
        if option not in family.options:
            valid = f"only {', '.join(family.options)}" if family.options else "none"
            raise UserError(
                f"config: model '{model}': the family '{entry['family']}' has no option "
                f"'{option}', {valid}; remove it from 'options'."
            )
    if trusts_code(entry) and "hub" not in entry["source"]:
        raise UserError(
            f"config: model '{model}': 'options.trust_remote_code' runs code that comes with the "
            "weights, so it must be code that cannot change; use it with a 'hub' source, which has "
            "a fixed revision."
        )


def _check_abilities(
    runs: Iterable[Run], models: Mapping[str, Mapping[str, Any]], root: Path
) -> None:
    """Refuse tasks that a model cannot do, as far as the files that are here say."""
    for run in runs:
        entry = models[run.model]
        try:
            check_abilities(
                entry["family"],
                files_here(run.model, _rooted(entry, root), root),
                run.task,
                entry.get("options", {}),
            )
        except UserError as error:
            raise UserError(f"config: model '{run.model}': {error}") from error


def _check_masks(config: Mapping[str, Any]) -> None:
    for step in ("smx", "smh"):
        fewest = config[step]["n_masks"]
        most = config[step].get("max_masks", fewest)
        if most < fewest:
            raise UserError(
                f"config: '{step}.max_masks' must be at least '{step}.n_masks' ({fewest}), not "
                f"{most}."
            )
    _check_levels(config["smx"], "smx")
    if any(METHODS[method].sampled for method in config["gradient"]["methods"]):
        levels = {"n_segments": config["smx"]["n_segments"]}
        _check_levels(config["gradient"] | levels, "gradient", "smx")


def _check_levels(masked: Mapping[str, Any], where: str, segmented: str = "") -> None:
    levels = len(masked["n_segments"])
    if masked["n_masks"] < N_FOLDS * levels:
        raise UserError(
            f"config: '{where}.n_masks' must be at least {N_FOLDS * levels}, not "
            f"{masked['n_masks']}, for {levels} levels of '{segmented or where}.n_segments': "
            f"reliability needs {N_FOLDS} masks of each."
        )


def _designs(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of every design under `sensitivity`, by name."""
    designs: dict[str, dict[str, Any]] = {}
    main = {"occluded_value": INPUT_VALUE, **config["smx"]}
    for position, changes in enumerate(config.get("sensitivity", [])):
        where = f"sensitivity[{position}]"
        # A search for a reliability belongs to the main design.
        search = ("target_reliability", "max_masks")
        design = {name: main[name] for name in main if name not in search} | changes
        if all(design[name] == main[name] for name in changes):
            raise UserError(f"config: '{where}' is the design of 'smx' itself; change or drop it.")
        if design in designs.values():
            raise UserError(f"config: '{where}' is there twice; drop one.")
        _check_levels(design, where)
        designs[_design_name(changes)] = design
    return designs


def _design_name(changes: Mapping[str, Any]) -> str:
    """Return ``n_segments-50-100_p-0.1``, safe in paths."""
    parts = []
    for name in sorted(changes):
        value = changes[name]
        values = value if isinstance(value, list) else [value]
        parts.append("-".join([name, *(str(value).replace(" ", "-") for value in values)]))
    return "_".join(parts)


def _runs(
    request: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    datasets: Mapping[str, Mapping[str, Any]],
    root: Path,
    config: Mapping[str, Any],
    only: Key | None,
) -> list[Run]:
    """Return the runs of an entry of ``runs``, or of these no other than ``only``."""
    dataset = _entry_name("dataset", request["dataset"], datasets)
    keys = [(dataset, model, task) for model in request["models"] for task in request["tasks"]]
    if only is not None:
        keys = [key for key in keys if key == only]
    if not keys:
        return []
    entry = datasets[dataset]
    utterances = None if is_absent(entry, root) else read_dataset(entry, root)
    runs = []
    for _, model, name in keys:
        facts = models[_entry_name("model", model, models)]
        try:
            task = parse_task(name)
            check_task(model, facts, task)
            selected = (
                select(absent_utterances(entry, root, task), task)
                if utterances is None
                else select(utterances, task, request.get("utterances"))
            )
        except UserError as error:
            raise UserError(f"config: runs of '{dataset}': {error}") from error
        folded = task.target in entry.get("fold_diacritics", ())
        runs.append(
            Run(
                dataset=dataset,
                model=model,
                task=task,
                utterances=tuple(selected),
                shards=shards([utterance.id for utterance in selected], config["shard_size"]),
                diacritics="folded" if folded else "kept",
                layers=tuple(request.get("layers", ())),
                max_seconds=facts.get("max_seconds"),
            )
        )
    return runs


def _checked(run: Run, config: Mapping[str, Any]) -> Run:
    """Return a run that knows which of its recordings cannot be used."""
    _check_alignments(run.utterances)
    return replace(run, unusable=_check_audio(run, stop=config["on_failure"] == "stop"))


def _check_audio(run: Run, *, stop: bool) -> dict[str, str]:
    """Return what is wrong with audio that no job could use, before the first one starts.

    Refuse it where one failure is to stop the study, or all of it would fail.
    """
    unusable = {}
    for utterance in run.utterances:
        try:
            utterance.check(run.max_seconds)
        except UtteranceError as error:
            unusable[utterance.id] = f"{utterance.where}: {error}"
            if stop:
                raise UserError(f"{'/'.join(run.key)}: {unusable[utterance.id]}") from error
    if len(unusable) == len(run.utterances):
        raise UserError(_unusable(replace(run, unusable=unusable)))
    return unusable


def _unusable(run: Run) -> str:
    """Return one sentence on the recordings of a run that cannot be used."""
    n, n_all, first = len(run.unusable), len(run.utterances), next(iter(run.unusable.values()))
    reason = first if n == 1 else f"the first: {first}"
    return f"{'/'.join(run.key)}: {n:,} of {n_all:,} recordings cannot be used; {reason}"


def _audio_sha256(utterance: Utterance) -> str:
    try:
        return utterance.audio_sha256()
    except UtteranceError:
        return "cannot be read"  # as good a reason to run again as another recording


def _check_alignments(utterances: Sequence[Utterance]) -> None:
    """Refuse boundaries that the last step could not use, before the first one starts."""
    for utterance in utterances:
        if utterance.alignment:
            read_alignment(utterance.alignment)


def _rooted(entry: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
    """Return a model's entry with the folder it comes from, if any, made absolute."""
    source = entry["source"]
    if "path" not in source:
        return entry
    return {**entry, "source": {**source, "path": str(root / source["path"])}}


def _entry_name(kind: str, name: str, entries: Mapping[str, Any]) -> str:
    if name not in entries:
        raise UserError(
            f"config: unknown {kind} '{name}'{did_you_mean(name, list(entries)) or '.'} "
            f"Choose one of: {', '.join(entries)}; or describe it under '{kind}s' in the config."
        )
    return name
