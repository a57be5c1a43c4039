import pytest

from s2txai.errors import UserError
from s2txai.registry import (
    NameTakenError,
    Registry,
    did_you_mean,
    extension_hashes,
    load_object,
    registering,
)
from s2txai.saliency.aggregation import AGGREGATIONS, Aggregation
from s2txai.saliency.methods import METHODS, Method
from s2txai.storage.versions import ALGORITHM_VERSIONS, version_of
from s2txai.study.layout import STEPS


@pytest.fixture
def registry():
    found = Registry("pooling")
    found.register("max2d")(max)
    found.register("avg2d")(sum)
    return found


def test_names_lead_to_what_is_registered(registry):
    assert registry["max2d"] is max
    assert registry["avg2d"] is sum
    assert list(registry) == ["max2d", "avg2d"]


def test_decorated_function_stays_itself(registry):
    @registry.register("first")
    def first(cells):
        return cells[0]

    assert first([4, 5]) == 4
    assert registry["first"] is first


def test_near_miss(registry):
    with pytest.raises(UserError) as caught:
        registry["max2"]
    expected = "Unknown pooling 'max2'; did you mean 'max2d'? Choose one of: avg2d, max2d."
    assert str(caught.value) == expected


def test_wide_miss(registry):
    with pytest.raises(UserError) as caught:
        registry["kendall"]
    assert str(caught.value) == "Unknown pooling 'kendall'. Choose one of: avg2d, max2d."


def test_registries_are_apart(registry):
    with pytest.raises(UserError):
        Registry("pooling")["max2d"]


def test_did_you_mean():
    assert did_you_mean("spearmen", ["pearson", "spearman"]) == "; did you mean 'spearman'?"
    assert did_you_mean("x", ["pearson", "spearman"]) == ""
    assert did_you_mean("x", []) == ""


def test_a_name_is_registered_once(registry):
    with pytest.raises(NameTakenError, match="pooling 'max2d' is registered already"):
        registry.register("max2d")(min)
    assert registry["max2d"] is max


def test_a_name_knows_the_extension_that_registered_it(registry):
    with registering("f" * 64):
        registry.register("median2d")(sorted)
    registry.register("min2d")(min)
    assert registry.origin("median2d") == "f" * 64
    assert registry.origin("min2d") is registry.origin("max2d") is registry.origin("none") is None
    names = {registry: ["median2d", "max2d", "none", "median2d"]}
    assert extension_hashes(names) == {"pooling:median2d": "f" * 64}
    assert extension_hashes({registry: ["max2d"]}) == {}


def test_objects_are_loaded_by_name():
    assert load_object("math:sqrt")(4) == 2
    assert load_object(max) is max
    with pytest.raises(AttributeError):
        load_object("math:root")


def test_what_a_failed_import_registered_is_forgotten(registry):
    def fail():
        with registering("f" * 64):
            registry.register("mean2d")(min)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "mean2d" not in registry
    assert registry.origin("mean2d") is None
    registry.register("mean2d")(min)


@pytest.mark.parametrize("name", ["full", "sums_of", "half_halves"])
def test_a_reserved_name_is_refused(name):
    registry = Registry("pooling", reserved=("full", "sums_"), in_results=True)
    with pytest.raises(NameTakenError, match=f"pooling '{name}' has a name that means something"):
        registry.register(name)(min)
    registry.register("sums")(min)


@pytest.mark.parametrize("name", ["a/b", "ä", "mean 2d", "2d", ""])
def test_a_name_that_cannot_stand_in_results_is_refused(name):
    with pytest.raises(NameTakenError, match="cannot stand in the names of results"):
        Registry("pooling", in_results=True).register(name)(min)


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_no_gradient_method_has_the_name_of_a_step(step):
    with pytest.raises(NameTakenError, match=f"gradient method '{step}'"):
        METHODS.register(step)(Method(min))


@pytest.mark.parametrize("name", ["head", "layer", "layer_0", "last", "best_head"])
def test_no_aggregation_has_the_name_of_another_map(name):
    with pytest.raises(NameTakenError, match=f"aggregation of attention '{name}'"):
        AGGREGATIONS.register(name)(Aggregation(min))


@pytest.mark.parametrize(
    "name", ["tokens", "padding_mass", "n_masks_smx", "smx_avg2d", "ca_mean", "vn_a", "ro_b"]
)
def test_no_gradient_method_has_the_name_of_an_array(name):
    with pytest.raises(NameTakenError, match="means something else in results"):
        METHODS.register(name)(Method(min))


def test_the_version_of_a_misspelt_step_is_no_number():
    with pytest.raises(KeyError):
        version_of("aggregat")
    assert version_of("grad") == ALGORITHM_VERSIONS["grad"]
