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
