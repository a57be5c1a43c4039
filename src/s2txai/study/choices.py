"""The names that a configuration may choose, and the extensions behind those that a step uses."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from s2txai.datasets.text_normalisers import TEXT_NORMALISERS
from s2txai.errors import UserError
from s2txai.models.families import FAMILIES
from s2txai.registry import SCORE, Registry, extension_hashes, names_of_extensions
from s2txai.saliency.aggregation import AGGREGATIONS
from s2txai.saliency.correlation import METRICS
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.methods import METHODS, GradientSettings
from s2txai.saliency.occluded_values import OCCLUDED_STATES, OCCLUDED_VALUES
from s2txai.saliency.pooling import POOLINGS

# Which registry the names under a key come from; planning refuses others.
CHOICES: Mapping[str, Registry[Any]] = MappingProxyType(
    {
        "text_normalisation": TEXT_NORMALISERS,
        "smx.occluded_value": OCCLUDED_VALUES,
        "smx.estimator": ESTIMATORS,
        "sensitivity.occluded_value": OCCLUDED_VALUES,
        "smh.occluded_value": OCCLUDED_STATES,
        "smh.estimator": ESTIMATORS,
        "gradient.methods": METHODS,
        "aggregate.poolings": POOLINGS,
    }
)

# The keys whose names have a part in the numbers of a step.
_KEYS_OF_STEP: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "transcripts": ("text_normalisation",),
        "smx": ("smx.occluded_value", "smx.estimator"),
        "smh": ("smh.occluded_value", "smh.estimator"),
        "aggregate": ("aggregate.poolings", "smx.estimator", "smh.estimator"),
        "correlate": ("aggregate.poolings",),
        "deletion": ("aggregate.poolings", "gradient.methods"),
        "deletion_curves": ("text_normalisation",),
        "sensitivity": ("smx.estimator",),
    }
)
# The kinds of which a step uses all that is registered.
_KINDS_OF_STEP: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "transcripts": (SCORE,),
        "aggregate": (AGGREGATIONS.kind,),
        # Normalisations of maps are not among them: the study uses its own only.
        "correlate": (METRICS.kind,),
        "deletion_curves": (SCORE,),
        "sensitivity": (METRICS.kind,),
    }
)


def gradient_settings(config: Mapping[str, Any]) -> GradientSettings:
    """Return what a configuration says that gradient methods may use."""
    return GradientSettings(
        n_segments=tuple(config["smx"]["n_segments"]),
        p=config["smx"]["p"],
        n_masks=config["gradient"]["n_masks"],
        n_points=config["gradient"]["n_points"],
        seed=config["seed"],
    )


def check_names(config: Mapping[str, Any]) -> None:
    """Refuse names that are not registered.

    Raises
    ------
    UserError
        With the key, the valid names and the one that may have been meant.
    """
    for key, registry in CHOICES.items():
        for where, name in _names(config, key):
            try:
                registry[name]
            except UserError as error:
                raise UserError(f"config: '{where}': {error}") from error


def extensions_of(
    step: str,
    config: Mapping[str, Any],
    *,
    family: str | None = None,
    method: str | None = None,
    design: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the hashes of the extensions that have a part in the numbers of a step.

    Parameters
    ----------
    step
        Its name.
    config
        The configuration.
    family
        Of the model that the step runs, if it runs one.
    method
        Of the step ``gradients``.
    design
        Settings of ``smx`` in place of those of the configuration.

    Returns
    -------
    dict
        See :func:`s2txai.registry.extension_hashes`; empty without extensions.
    """
    settings = config if design is None else {**config, "smx": design}
    names: dict[Registry[Any], list[str]] = {}
    for key in _KEYS_OF_STEP.get(step, ()):
        names.setdefault(CHOICES[key], []).extend(name for _, name in _names(settings, key))
    for registry, registered in names_of_extensions(_KINDS_OF_STEP.get(step, ())).items():
        names.setdefault(registry, []).extend(registered)
    if family is not None:
        names[FAMILIES] = [family]
    if method is not None:
        names[METHODS] = [method]
    return extension_hashes(names)


def extensions_of_work(
    step: str, parameters: Mapping[str, Any], family: str | None
) -> dict[str, str]:
    """Return the hashes of the extensions behind a step's work on one utterance in the store.

    Parameters
    ----------
    step
        Its name, or that of a gradient method.
    parameters
        Of the work; see :func:`s2txai.steps.shard.entry_path`.
    family
        Of the model.
    """
    values = OCCLUDED_STATES if step == "smh" else OCCLUDED_VALUES
    names: dict[Registry[Any], list[str]] = {METHODS: [step]}
    if family is not None:
        names[FAMILIES] = [family]
    if "occluded_value" in parameters:
        names[values] = [parameters["occluded_value"]]
    return extension_hashes(names)


def _names(config: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a configuration gives under ``section.key``, with where they stand."""
    section, _, name = key.rpartition(".")
    entries = config.get(section, {}) if section else config
    several = isinstance(entries, list)
    for position, entry in enumerate(entries if several else [entries]):
        where = f"{section}[{position}].{name}" if several else key
        value = entry.get(name, [])
        for choice in [value] if isinstance(value, str) else value:
            yield where, choice
