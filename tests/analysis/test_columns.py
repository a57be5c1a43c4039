"""Values are placed by their key, whatever the order of the rows."""

import numpy as np
import pandas as pd
import pytest

from s2txai.analysis.columns import by_utterance, with_last

UTTERANCES = ["b", "a", "c"]
KEYS = pd.DataFrame(
    {"attention": ["ca_mean", "ca_layer", "ca_layer"], "layer": [None, 0, 1]}
).astype({"layer": "Int64"})


def table():
    rows = [
        (utterance, key.attention, key.layer, 10 * n + k)
        for n, utterance in enumerate(UTTERANCES)
        for k, key in enumerate(KEYS.itertuples())
    ]
    columns = ["utterance", "attention", "layer", "value"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


def expected():
    return np.arange(3)[:, None] + 10 * np.arange(3)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_does_not_matter(seed):
    shuffled = table().sample(frac=1, random_state=seed)
    np.testing.assert_array_equal(by_utterance(shuffled, "value", KEYS, UTTERANCES), expected())


def test_the_order_of_keys_and_utterances_is_the_one_that_is_given():
    values = by_utterance(table(), "value", KEYS[::-1].reset_index(drop=True), UTTERANCES[::-1])
    np.testing.assert_array_equal(values, expected()[::-1, ::-1])


def test_sums_over_utterances_have_the_bits_of_rows_in_order():
    rng = np.random.default_rng(0)
    rows = table().assign(value=rng.random(9))
    counts = rng.multinomial(3, np.full(3, 1 / 3), size=50).astype(float)
    in_order = rows["value"].to_numpy().reshape(3, -1).T
    values = by_utterance(rows, "value", KEYS, UTTERANCES)
    assert (values @ counts.T).tobytes() == (in_order @ counts.T).tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        table().iloc[1:],
        pd.concat([table(), table().iloc[:1]]),
        table().assign(layer=pd.array([pd.NA, 0, 2] * 3, dtype="Int64")),
        table().replace({"utterance": {"a": "z"}}),
        table().iloc[[0, 0, *range(2, 9)]],
    ],
    ids=["missing", "one too many", "unknown key", "unknown utterance", "twice for another"],
)
def test_other_rows_are_refused(wrong):
    with pytest.raises(ValueError, match="not one per key and utterance"):
        by_utterance(wrong, "value", KEYS, UTTERANCES)


def test_columns_move_to_the_end():
    assert list(with_last(table(), ["layer", "utterance"])) == [
        "attention", "value", "layer", "utterance",
    ]  # fmt: skip
