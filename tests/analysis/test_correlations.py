import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import kendalltau, pearsonr, spearmanr, t, zscore

from s2txai.analysis.ceilings import MEASURE
from s2txai.analysis.correlations import ATTENTION
from s2txai.analysis.headline import variants
from s2txai.errors import UserError
from s2txai.saliency.aggregation import attention_maps
from s2txai.saliency.correlation import METRICS, correlation, correlations, n_top, row_correlations
from s2txai.steps.correlate import correlation_tables
from s2txai.storage.artifacts import Artifact

I, STEPS = 7, 12
VARIANTS = [(variant.metric, variant.normalise) for variant in variants()]


def maps(*seeds, shape=(I, STEPS)):
    return [np.random.default_rng(seed).gamma(1.0, size=shape) for seed in seeds]


def row_mean(metric, a, b):
    return np.mean([metric(x, y)[0] for x, y in zip(a, b, strict=True)])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), n_rows=st.integers(1, 9), n_steps=st.integers(3, 20))
def test_pearson_is_the_mean_over_rows(seed, n_rows, n_steps):
    a, b = maps(seed, seed + 1, shape=(n_rows, n_steps))
    found = correlation(a, b)
    assert found.value == pytest.approx(row_mean(pearsonr, a, b), abs=1e-12)
    assert (found.n_rows, found.n_constant) == (n_rows, 0)


def test_spearman_is_the_mean_over_rows():
    a, b = (np.round(3 * one) for one in maps(0, 1))  # rounded, for ties
    assert len(np.unique(a[0])) < STEPS
    found = correlation(a, b, metric="spearman")
    assert found.value == pytest.approx(row_mean(spearmanr, a, b), abs=1e-12)


def test_spearman_sees_only_ranks():
    (a,) = maps(0)
    assert correlation(a, np.exp(5 * a), metric="spearman").value == pytest.approx(1)
    assert correlation(a, np.exp(5 * a)).value < 0.9


def signs(row):
    """Return the order of every two steps: 1, -1 or 0 for a tie."""
    first, second = np.triu_indices(len(row), 1)
    return np.sign(row[first] - row[second])


def test_kendall_counts_pairs_in_the_same_order():
    a, b = (np.round(3 * one) for one in maps(0, 1))  # rounded, for ties
    expected = [
        # tau-b: concordant minus discordant pairs over those that are no tie, on each side
        (signs(x) @ signs(y)) / np.sqrt((signs(x) ** 2).sum() * (signs(y) ** 2).sum())
        for x, y in zip(a, b, strict=True)
    ]
    found = correlation(a, b, metric="kendall")
    assert found.value == pytest.approx(np.mean(expected), abs=1e-12)


def test_kendall_of_one_swap():
    row = np.arange(STEPS, dtype=float)
    swapped = row.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    n_pairs = STEPS * (STEPS - 1) / 2
    found = correlation(row[None], swapped[None], metric="kendall").value
    assert found == pytest.approx(1 - 2 / n_pairs)


def test_cosine_is_the_mean_over_rows():
    a, b = maps(0, 1)
    a[2] *= 100  # no row counts more for being larger
    expected = np.mean([1 - cosine(x, y) for x, y in zip(a, b, strict=True)])
    assert correlation(a, b, metric="cosine").value == pytest.approx(expected, abs=1e-12)


def test_cosine_of_known_angles():
    a = np.array([[1.0, 0, 0], [1, 1, 0], [3, 4, 0]])
    b = np.array([[0.0, 2, 0], [1, 0, 0], [-3, -4, 0]])
    found = correlation(a, b, metric="cosine").value
    assert found == pytest.approx((0 + np.sqrt(0.5) - 1) / 3)


@pytest.mark.parametrize(
    ("n_steps", "k"), [(1, 1), (4, 1), (14, 1), (15, 2), (24, 2), (25, 3), (350, 35)]
)
def test_a_tenth_of_the_steps_is_compared(n_steps, k):
    assert n_top(n_steps) == k


def test_overlap_is_the_share_of_top_steps_in_common():
    steps = np.arange(40.0)  # k = 4: steps 36 to 39
    shifted = np.roll(steps, 1)  # the largest are 37, 38, 39 and 0
    a = np.stack([steps, steps, steps])
    b = np.stack([steps**3, shifted, -steps])
    found = correlation(a, b, metric="overlap").value
    assert found == pytest.approx((1 + 3 / 4 + 0) / 3)


def test_of_equal_steps_the_earlier_are_on_top():
    a = np.zeros((1, 30))
    a[0, [5, 20, 21, 22]] = [2, 1, 1, 1]  # k = 3: steps 5, 20, 21
    b = np.zeros((1, 30))
    b[0, 5], b[0, 22] = 3, 1  # and the first of the zeros, step 0
    assert correlation(a, b, metric="overlap").value == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", list(METRICS))
def test_a_map_agrees_fully_with_itself(metric):
    (a,) = maps(0)
    assert correlation(a, a, metric=metric).value == pytest.approx(1)


@pytest.mark.parametrize("metric", ["kendall", "cosine", "overlap"])
@pytest.mark.parametrize("normalise", ["none", "frame"])
def test_row_by_row_there_is_nothing_to_normalise(metric, normalise):
    a, b = maps(0, 1)
    with pytest.raises(UserError, match=f"'{metric}' compares row by row.*'{normalise}'"):
        correlation(a, b, metric=metric, normalise=normalise)


def test_without_normalisation():
    a, b = maps(0, 1)
    found = correlation(a, b, normalise="none")
    assert found.value == pytest.approx(pearsonr(a.ravel(), b.ravel())[0])


def test_standardised_by_frame():
    a, b = maps(0, 1)
    expected = pearsonr(zscore(a, axis=0).ravel(), zscore(b, axis=0).ravel())[0]
    assert correlation(a, b, normalise="frame").value == pytest.approx(expected)


def test_a_column_without_variation_counts_as_average():
    a, b = maps(0, 1)
    a[:, 3] = 0.25
    za, zb = zscore(np.delete(a, 3, axis=1), axis=0), zscore(b, axis=0)
    expected = pearsonr(np.insert(za, 3, 0, axis=1).ravel(), zb.ravel())[0]
    assert correlation(a, b, normalise="frame").value == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "normalise"), VARIANTS)
def test_constant_rows_are_left_out_and_counted(metric, normalise):
    a, b = maps(0, 1)
    options = {"metric": metric, "normalise": normalise}
    expected = correlation(np.delete(a, [2, 5], 0), np.delete(b, [2, 5], 0), **options).value
    a[2], b[5] = 0.1, 0  # in one map or the other
    found = correlation(a, b, **options)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert (found.n_rows, found.n_constant) == (I - 2, 2)


def test_rounding_does_not_make_a_row_vary():
    a, b = maps(0, 1)
    a[0] = 1 / STEPS * (1 + 5e-9 * np.arange(STEPS))
    assert correlation(a, b).n_constant == 1


@pytest.mark.parametrize(("metric", "normalise"), VARIANTS)
def test_all_constant_has_no_correlation(metric, normalise):
    (a,) = maps(0)
    found = correlation(a, np.full((I, STEPS), 0.5), metric=metric, normalise=normalise)
    assert np.isnan(found.value)
    assert (found.n_rows, found.n_constant) == (0, I)


def test_scale_and_sign():
    (a,) = maps(0)
    scaled = a * np.arange(1, I + 1)[:, None] + np.arange(I)[:, None]
    assert correlation(a, scaled).value == pytest.approx(1)
    assert correlation(a, -scaled).value == pytest.approx(-1)
    assert correlation(a, scaled, normalise="none").value < 0.9


def test_several_maps_are_correlated_one_by_one():
    a, b, c = maps(0, 1, 2)
    a[1] = 1  # constant in the first map only
    found = correlations(np.stack([a, b]), c)
    assert found == [correlation(a, c), correlation(b, c)]
    assert [one.n_constant for one in found] == [1, 0]


@pytest.mark.parametrize("wrong", [{"metric": "pearsons"}, {"normalise": "tokens"}])
def test_unknown_names(wrong):
    a, b = maps(0, 1)
    with pytest.raises(UserError, match=r"did you mean '(pearson|token)'"):
        correlation(a, b, **wrong)


# The tables of the step

POOLINGS = ("avg2d", "max2d")
ENOUGH = {"target_reliability": 0.7, "converged": True}
SMX = {"n_segments": [100, 200], "p": 0.5, "seed": 1}
SMH = {"p": 0.5, "seed": 1}
L, H = 2, 3


def noisy(rng, signal, noise, *shape):
    return signal + noise * rng.standard_normal((*shape, *signal.shape))


def aggregated(utterance, seed, *, n_rows=I, attention=None, smx_noise=0.5, smh_noise=0.2):
    """Return maps that are one signal with noise: known correlations in the mean."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((n_rows, STEPS))
    if attention is None:
        attention = np.stack([noisy(rng, signal, h, L) for h in range(H)], axis=1)
    arrays = {**attention_maps(attention), "padding_mass": np.zeros((L, H, n_rows))}
    for name, noise in [("smx_avg2d", smx_noise), ("smx_max2d", smx_noise), ("smh", smh_noise)]:
        halves = noisy(rng, signal, noise, 3, 2)
        arrays |= {f"{name}_halves": halves, name: halves[0].mean(axis=0)}
    arrays |= {
        "n_masks_smx": np.array(480),
        "n_masks_smh": np.array(1000),
        "pieces": np.array([*[" a"] * (n_rows - 1), "<eos>"]),
        "roles": np.array([*["text"] * (n_rows - 1), "eos"]),
        "word_index": np.array([*range(n_rows - 1), -1]),
    }
    masks = {
        "smx": {**ENOUGH, "n_masks": 480, "reliability": 0.8},
        "smh": {**ENOUGH, "n_masks": 1000, "reliability": None, "converged": False},
    }
    meta = {"utterance": utterance, "parameters": {"smx": SMX, "smh": SMH}, "masks": masks}
    return Artifact(arrays, meta)


def test_masks_of_every_utterance_are_told():
    table = correlation_tables(
        [aggregated("a", 0), aggregated("b", 1)], poolings=["avg2d"], rows="all"
    ).masks
    assert table[["utterance", "step", "n_masks", "converged"]].to_numpy().tolist() == [
        ["a", "smx", 480, True],
        ["a", "smh", 1000, False],
        ["b", "smx", 480, True],
        ["b", "smh", 1000, False],
    ]
    assert (table["target_reliability"] == 0.7).all()
    assert table["reliability"].isna().tolist() == [False, True, False, True]


def pick(table, **wanted):
    """Return the one row with these values; None stands for a missing one."""
    found = table
    for name, value in wanted.items():
        found = found[found[name].isna() if value is None else found[name] == value]
    assert len(found) == 1, f"{len(found)} rows for {wanted}"
    return found.iloc[0]


HEADLINE = {"metric": "pearson", "normalise": "token"}
MEAN = {"attention": "ca_mean", "layer": None, "head": None}


@pytest.fixture(scope="module")
def artifacts():
    return [aggregated("u1", 1), aggregated("u2", 2, n_rows=5), aggregated("u3", 3, n_rows=6)]


@pytest.fixture(scope="module")
def tables(artifacts):
    return correlation_tables(artifacts, poolings=POOLINGS, rows="all")


def test_utterance_table(tables, artifacts):
    n_maps, n_saliencies, n_variants = 1 + L + L * H, 3, 7
    assert len(tables.utterances) == 3 * n_maps * n_saliencies * n_variants
    for artifact in artifacts:
        for layer, head in [(0, 2), (1, 0)]:
            row = pick(
                tables.utterances, utterance=artifact.meta["utterance"], saliency="smx_max2d",
                attention="ca_head", layer=layer, head=head, metric="spearman", normalise="token",
            )  # fmt: skip
            a, b = artifact["ca_head"][layer, head], artifact["smx_max2d"]
            assert row["value"] == pytest.approx(row_mean(spearmanr, a, b))
            assert row["n_rows"] == len(a)
        row = pick(
            tables.utterances, utterance=artifact.meta["utterance"], saliency="smh",
            attention="ca_layer", layer=1, **HEADLINE,
        )  # fmt: skip
        expected = row_mean(pearsonr, artifact["ca_layer"][1], artifact["smh"])
        assert row["value"] == pytest.approx(expected)
        assert pd.isna(row["head"])


def test_every_option_is_in_the_signature(tables):
    for table in (tables.utterances, tables.summary):
        for _, row in table.drop_duplicates(MEASURE).iterrows():
            for name in ("metric", "normalise", "rows"):
                assert f"{name}:{row[name]}" in row["signature"].split("|")


def test_summary_is_the_mean_over_utterances(tables):
    keys = [*ATTENTION, *MEASURE]
    assert not tables.summary.duplicated(keys).any()
    assert len(tables.summary) == len(tables.utterances) / 3
    for _, row in tables.summary.sample(20, random_state=0).iterrows():
        same = tables.utterances
        for key in keys:
            same = same[same[key].isna() if pd.isna(row[key]) else same[key] == row[key]]
        assert row["rho"] == pytest.approx(same["value"].mean())
        assert (row["n_utterances"], row["n_undefined_utterances"]) == (3, 0)
        assert (row["n_rows"], row["n_constant_rows"]) == (I + 5 + 6, 0)


def test_reliability_is_computed_as_the_headline(tables, artifacts):
    for saliency, n_masks in [("smx_avg2d", 480), ("smh", 1000)]:
        row = pick(tables.reliability, saliency=saliency, **HEADLINE)
        half = np.mean(
            [
                [row_mean(pearsonr, a, b) for a, b in artifact[f"{saliency}_halves"]]
                for artifact in artifacts
            ]
        )
        assert row["half_correlation"] == pytest.approx(half)
        assert row["reliability"] == pytest.approx(2 * half / (1 + half))
        assert (row["n_masks"], row["n_utterances"]) == (n_masks, 3)


@pytest.mark.parametrize(
    ("saliency", "metric", "kind"),
    [
        ("smx_avg2d", "pearson", "exact"),
        ("smh", "pearson", "exact"),
        ("smx_max2d", "pearson", "approximate"),
        ("smx_avg2d", "spearman", "empirical"),
        ("smh", "kendall", "empirical"),
        ("smh", "cosine", "empirical"),
        ("smx_max2d", "overlap", "empirical"),
    ],
)
def test_ceiling_and_corrected_value(tables, saliency, metric, kind):
    keys = {"saliency": saliency, "metric": metric, "normalise": "token"}
    row, measured = pick(tables.summary, **MEAN, **keys), pick(tables.reliability, **keys)
    assert row["ceiling_kind"] == measured["kind"] == kind
    if kind == "empirical":
        assert row["ceiling"] == measured["half_correlation"]
        assert pd.isna(row["reliability"])
    else:
        assert row["ceiling"] == pytest.approx(np.sqrt(measured["reliability"]))
    if kind == "exact":
        assert row["rho_corrected"] == pytest.approx(row["rho"] / row["ceiling"])
        assert row["r2_corrected"] == pytest.approx(row["rho_corrected"] ** 2)
    else:
        assert pd.isna(row["rho_corrected"])
        assert pd.isna(row["r2_corrected"])


def test_every_value_of_an_utterance_has_its_own_ceiling_beside_it(tables, artifacts):
    for artifact in artifacts:
        own = {"utterance": artifact.meta["utterance"], **MEAN}
        halves = artifact["smx_avg2d_halves"]
        half = np.mean([row_mean(pearsonr, a, b) for a, b in halves])
        row = pick(tables.utterances, **own, saliency="smx_avg2d", **HEADLINE)
        assert row["reliability"] == pytest.approx(2 * half / (1 + half))
        assert row["ceiling"] == pytest.approx(np.sqrt(row["reliability"]))
        assert row["value_corrected"] == pytest.approx(row["value"] / row["ceiling"])
        assert row["ceiling_kind"] == "exact"
        ranks = {"metric": "spearman", "normalise": "token"}
        row = pick(tables.utterances, **own, saliency="smx_avg2d", **ranks)
        half = np.mean([row_mean(spearmanr, a, b) for a, b in halves])
        assert row["ceiling"] == pytest.approx(half)
        assert pd.isna(row["value_corrected"])
    # Of a single utterance the summary says the same.
    one = correlation_tables(artifacts[:1], poolings=POOLINGS, rows="all")
    for name in ("reliability", "ceiling"):
        np.testing.assert_array_equal(one.utterances[name], one.summary[name])
    np.testing.assert_array_equal(one.utterances["value_corrected"], one.summary["rho_corrected"])


def test_correction_undoes_the_noise_of_the_map():
    """An attention head that is the signal itself: corrected to 1 whatever the noise."""
    many = [aggregated(f"u{seed}", seed, n_rows=40, smx_noise=1.5) for seed in range(8)]
    summary = correlation_tables(many, poolings=POOLINGS, rows="all").summary
    head = {"attention": "ca_head", "layer": 0, "head": 0, **HEADLINE}
    for saliency, raw in [("smx_avg2d", 0.69), ("smh", 0.99)]:
        row = pick(summary, saliency=saliency, **head)
        assert row["rho"] == pytest.approx(raw, abs=0.03)
        assert row["rho_corrected"] == pytest.approx(1, abs=0.02)


def test_mixing(tables):
    n_maps, n_variants = 1 + L + L * H, 7
    assert len(tables.mixing) == n_maps * n_variants * len(POOLINGS)
    assert not tables.mixing.duplicated([*ATTENTION, "pooling", "metric", "normalise"]).any()
    for names in (MEAN, {"attention": "ca_head", "layer": 1, "head": 2}):
        row = pick(tables.mixing, pooling="avg2d", **names, **HEADLINE)
        smx, smh = (
            pick(tables.summary, saliency=name, **names, **HEADLINE)
            for name in ("smx_avg2d", "smh")
        )
        delta = smh["rho"] - smx["rho"]
        corrected = smh["rho_corrected"] - smx["rho_corrected"]
        assert row[["rho_smx", "rho_smh"]].tolist() == [smx["rho"], smh["rho"]]
        assert row["delta"] == pytest.approx(delta)
        assert row["delta_relative"] == pytest.approx(delta / smh["rho"])
        assert row["delta_corrected"] == pytest.approx(corrected)
        assert row["delta_relative_corrected"] == pytest.approx(corrected / smh["rho_corrected"])
    row = pick(tables.mixing, pooling="max2d", **MEAN, **HEADLINE)
    assert pd.isna(row["delta_corrected"])


def test_utterances_without_a_correlation_are_left_out_and_counted():
    flat = np.full((L, H, I, STEPS), 1 / STEPS)
    flat[1, 0] = np.random.default_rng(0).random((I, STEPS))
    whole, partly = aggregated("u1", 1), aggregated("u2", 2, attention=flat)
    summary = correlation_tables([whole, partly], poolings=POOLINGS, rows="all").summary
    row = pick(summary, attention="ca_head", layer=0, head=1, saliency="smh", **HEADLINE)
    assert (row["n_utterances"], row["n_undefined_utterances"]) == (1, 1)
    assert (row["n_rows"], row["n_constant_rows"]) == (I, I)
    assert row["rho"] == pytest.approx(row_mean(pearsonr, whole["ca_head"][0, 1], whole["smh"]))
    row = pick(summary, attention="ca_head", layer=1, head=0, saliency="smh", **HEADLINE)
    assert (row["n_utterances"], row["n_undefined_utterances"]) == (2, 0)


def test_nothing_that_varies_gives_no_number():
    flat = aggregated("u1", 1, attention=np.full((L, H, I, STEPS), 0.1))
    for name in ("smx_avg2d", "smx_max2d", "smh"):
        flat.arrays.update({key: np.zeros_like(flat[key]) for key in (name, f"{name}_halves")})
    tables = correlation_tables([flat], poolings=POOLINGS, rows="all")
    assert (tables.summary["n_utterances"] == 0).all()
    assert (tables.summary["n_undefined_utterances"] == 1).all()
    assert (tables.reliability["n_utterances"] == 0).all()
    for table, columns in [
        (tables.summary, ["rho", "reliability", "ceiling", "rho_corrected", "r2_corrected"]),
        (tables.reliability, ["half_correlation", "reliability"]),
        (tables.mixing, ["rho_smx", "rho_smh", "delta", "delta_relative", "delta_corrected"]),
    ]:
        assert table[columns].isna().all(axis=None), table[columns]


def test_halves_that_disagree_leave_nothing_to_correct():
    artifact = aggregated("u1", 1)
    halves = artifact.arrays["smh_halves"]
    halves[:, 1] = -halves[:, 0]
    tables = correlation_tables([artifact], poolings=POOLINGS, rows="all")
    row = pick(tables.summary, saliency="smh", **MEAN, **HEADLINE)
    assert row["reliability"] == row["ceiling"] == 0
    assert pd.isna(row["rho_corrected"])
    assert pd.notna(row["rho"])


def test_rows_of_text_only(artifacts):
    tables = correlation_tables(artifacts, poolings=POOLINGS, rows="text")
    row = pick(tables.summary, saliency="smh", **MEAN, **HEADLINE)
    means = [row_mean(pearsonr, one["ca_mean"][:-1], one["smh"][:-1]) for one in artifacts]
    assert row["rho"] == pytest.approx(np.mean(means))
    assert row["n_rows"] == I - 1 + 4 + 5
    assert row["rows"] == "text"


def test_layers_and_heads_are_whole_numbers_in_files(tables, tmp_path):
    for name in ("utterances", "summary", "mixing"):
        path = tmp_path / f"{name}.csv"
        getattr(tables, name).to_csv(path, index=False)
        read = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert set(read["layer"]) == {"", "0", "1"}
        assert set(read["head"]) == {"", "0", "1", "2"}


# Confidence intervals and the choice of a head


def studied(n, **options):
    return correlation_tables(
        [aggregated(f"u{seed}", seed, **options) for seed in range(n)],
        poolings=POOLINGS, rows="all",
    )  # fmt: skip


@pytest.fixture(scope="module")
def twelve():
    return studied(12)


def test_interval_of_rho_is_that_of_a_mean(twelve):
    row = pick(twelve.summary, saliency="smx_avg2d", **MEAN, **HEADLINE)
    values = twelve.utterances
    values = values[(values["attention"] == "ca_mean") & (values["saliency"] == "smx_avg2d")]
    values = values[(values["metric"] == "pearson") & (values["normalise"] == "token")]["value"]
    half = t.ppf(0.975, 11) * values.std() / np.sqrt(12)
    assert row["rho_high"] - row["rho_low"] == pytest.approx(2 * half, rel=0.2)
    assert row["rho_low"] < row["rho"] < row["rho_high"]
    assert row["rho_corrected_low"] < row["rho_corrected"] < row["rho_corrected_high"]


def test_what_has_no_correction_has_no_corrected_interval(twelve):
    row = pick(twelve.summary, saliency="smx_max2d", **MEAN, **HEADLINE)
    assert np.isnan([row["rho_corrected_low"], row["rho_corrected_high"]]).all()
    assert np.isfinite([row["rho_low"], row["rho_high"]]).all()


def test_interval_of_a_difference_is_paired(twelve):
    """The same utterances are on both sides, so what they share does not widen it."""
    row = pick(twelve.mixing, pooling="avg2d", **MEAN, **HEADLINE)
    assert row["delta_low"] < row["delta"] < row["delta_high"]
    sides = [
        pick(twelve.summary, saliency=name, **MEAN, **HEADLINE) for name in ("smh", "smx_avg2d")
    ]
    apart = np.hypot(*(side["rho_high"] - side["rho_low"] for side in sides))
    assert row["delta_high"] - row["delta_low"] < apart


def test_one_utterance_has_no_interval():
    tables = studied(1)
    columns = [name for name in tables.summary if name.endswith(("_low", "_high"))]
    assert tables.summary[columns].isna().all(axis=None)
    assert tables.best_heads["rho_held_out"].isna().all()
    assert tables.best_heads["rho"].notna().all()


def test_intervals_depend_on_the_seed_alone():
    again, other = studied(12), studied(12)
    pd.testing.assert_frame_equal(again.summary, other.summary)
    moved = correlation_tables(
        [aggregated(f"u{seed}", seed) for seed in range(12)], poolings=POOLINGS, rows="all", seed=1
    )
    assert (moved.summary["rho"] == again.summary["rho"]).all()
    assert (moved.summary["rho_low"] != again.summary["rho_low"]).any()


def test_best_head_is_the_one_without_noise(twelve):
    for _, row in twelve.best_heads.iterrows():
        assert row["head"] == 0  # head h has noise h
        assert row["rho_held_out"] <= row["rho"] + 1e-12


def test_a_head_chosen_by_chance_is_judged_elsewhere():
    """Heads that are alike: the best of them is luck, and held out it is worth the average."""
    rng = np.random.default_rng(0)
    many = []
    for number in range(10):
        artifact = aggregated(f"u{number}", number)
        heads = rng.standard_normal((L, H, I, STEPS))
        many.append(replace_attention(artifact, heads))
    tables = correlation_tables(many, poolings=POOLINGS, rows="all")
    heads = tables.summary[tables.summary["attention"] == "ca_head"]
    for _, row in tables.best_heads.iterrows():
        same = heads[(heads["saliency"] == row["saliency"]) & (heads["metric"] == "pearson")]
        same = same[same["normalise"] == "token"]["rho"]
        assert row["rho"] == pytest.approx(same.max())
        assert row["rho_held_out"] < row["rho"]
        assert row["n_heads_chosen"] > 1


# Rows, classes of tokens, positions


def test_rows_are_what_the_headline_is_the_mean_of(tables, artifacts):
    assert len(tables.rows) == (I + 5 + 6) * 3 * (1 + L)
    means = tables.rows.groupby(["utterance", "attention", "layer", "saliency"], dropna=False)
    for (utterance, attention, layer, saliency), value in means["value"].mean().items():
        row = pick(
            tables.utterances, utterance=utterance, attention=attention,
            layer=None if pd.isna(layer) else layer, saliency=saliency, **HEADLINE,
        )  # fmt: skip
        assert value == pytest.approx(row["value"], abs=1e-12)
    first = pick(tables.rows, utterance="u1", row=2, attention="ca_mean", saliency="smh")
    one = artifacts[0]
    assert first["value"] == pytest.approx(pearsonr(one["ca_mean"][2], one["smh"][2])[0])
    assert (first["class"], first["position"]) == ("word", 2 / (I - 1))


def test_constant_attention_has_no_value_by_row():
    a, b = maps(0, 1)
    a[1] = 0.5
    found = row_correlations(a, b)
    assert np.isnan(found).tolist() == [row == 1 for row in range(I)]


def test_means_by_class_and_position(twelve):
    rows = twelve.rows[(twelve.rows["attention"] == "ca_mean") & (twelve.rows["saliency"] == "smh")]
    for by, group, chosen, n in (
        ("class", "word", rows["class"] == "word", 6),
        ("class", "end", rows["class"] == "end", 1),
        # I = 7: positions 0, 1/6; 2/6, 3/6; 4/6, 5/6, 1
        ("position", "start", rows["position"] < 0.3, 2),
        ("position", "middle", rows["position"].between(0.3, 0.6), 2),
        ("position", "end", rows["position"] > 0.6, 3),
    ):
        found = pick(twelve.classes, attention="ca_mean", saliency="smh", by=by, group=group)
        assert (found["n_rows"], found["n_utterances"]) == (12 * n, 12)
        assert found["mean"] == pytest.approx(rows[chosen]["value"].mean())
        assert found["low"] < found["mean"] < found["high"]
        assert "metric:pearson" in found["signature"]


def test_a_class_is_corrected_by_the_noise_of_its_own_rows(twelve):
    rows = twelve.rows[(twelve.rows["attention"] == "ca_mean") & (twelve.rows["class"] == "word")]
    for saliency in ("smh", "smx_avg2d"):
        found = pick(
            twelve.classes, attention="ca_mean", saliency=saliency, by="class", group="word"
        )
        half = rows[rows["saliency"] == saliency]["half_correlation"].mean()
        assert found["reliability"] == pytest.approx(2 * half / (1 + half))
        assert found["ceiling"] == pytest.approx(np.sqrt(found["reliability"]))
        assert found["mean_corrected"] == pytest.approx(found["mean"] / found["ceiling"])
    largest = pick(
        twelve.classes, attention="ca_mean", saliency="smx_max2d", by="class", group="word"
    )
    assert (largest["ceiling_kind"], np.isnan(largest["mean_corrected"])) == ("approximate", True)


def test_half_correlations_of_rows_are_those_of_the_reliability(twelve):
    """Where every row counts alike, their mean is the r of the whole map."""
    rows = twelve.rows[(twelve.rows["attention"] == "ca_mean") & (twelve.rows["saliency"] == "smh")]
    whole = pick(twelve.reliability, saliency="smh", **HEADLINE)
    assert rows["half_correlation"].mean() == pytest.approx(whole["half_correlation"], abs=1e-9)
    assert rows["signature"].iloc[0] == whole["signature"]


def test_the_best_head_has_the_ceiling_of_its_map(twelve):
    for _, row in twelve.best_heads.iterrows():
        whole = pick(twelve.reliability, saliency=row["saliency"], **HEADLINE)
        assert row["reliability"] == pytest.approx(whole["reliability"])
        if row["ceiling_kind"] == "exact":
            corrected = row["rho_held_out"] / np.sqrt(whole["reliability"])
            assert row["rho_held_out_corrected"] == pytest.approx(corrected)
        else:
            assert np.isnan(row["rho_held_out_corrected"])


def test_what_differs_between_classes_is_seen():
    """Attention follows the map where words are said; at the end it is as often opposed to it."""
    many = []
    for number in range(12):
        artifact = aggregated(f"u{number}", number)
        heads = np.broadcast_to(artifact["smh"], (L, H, I, STEPS)).copy()
        heads[:, :, -1] *= (-1) ** number
        many.append(replace_attention(artifact, heads))
    classes = correlation_tables(many, poolings=POOLINGS, rows="all").classes
    word, end = (
        pick(classes, attention="ca_mean", saliency="smh", by="class", group=name)
        for name in ("word", "end")
    )
    assert word[["mean", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert end["mean"] == pytest.approx(0, abs=1e-12)
    # Twelve values of 1 and -1: a t interval of a mean.
    half = t.ppf(0.975, 11) * np.std([1, -1] * 6, ddof=1) / np.sqrt(12)
    assert [-end["low"], end["high"]] == pytest.approx([half, half], rel=0.2)


# Other kinds of attention


def test_other_kinds_are_correlated_beside_the_weights(tables, artifacts):
    rng = np.random.default_rng(0)
    heads = {kind: rng.random((L, H, I, STEPS)) for kind in ("vn", "ro")}
    first = artifacts[0]
    more = {
        name: values for kind in heads for name, values in attention_maps(heads[kind], kind).items()
    }
    with_kinds = correlation_tables(
        [Artifact(first.arrays | more, first.meta)], poolings=POOLINGS, rows="all"
    )
    alone = correlation_tables([first], poolings=POOLINGS, rows="all")
    for kind, values in heads.items():
        row = pick(
            with_kinds.summary, attention=f"{kind}_head", layer=1, head=2, saliency="smh",
            **HEADLINE,
        )  # fmt: skip
        assert row["rho"] == pytest.approx(row_mean(pearsonr, values[1, 2], first["smh"]))
        row = pick(
            with_kinds.summary, attention=f"{kind}_layer", layer=0, saliency="smh",
            metric="kendall", normalise="token",
        )  # fmt: skip
        layer = values[0].mean(axis=0)
        assert row["rho"] == pytest.approx(row_mean(kendalltau, layer, first["smh"]))
    others = with_kinds.summary[~with_kinds.summary["attention"].str.startswith("ca_")]
    assert set(others["metric"]) == {"pearson", "spearman", "kendall", "cosine", "overlap"}
    assert set(others["normalise"]) == {"token"}
    assert len(others) == 2 * (1 + L + L * H) * 3 * 5
    # What is said of the weights does not change.
    same = with_kinds.summary[with_kinds.summary["attention"].str.startswith("ca_")]
    pd.testing.assert_frame_equal(same.reset_index(drop=True), alone.summary)
    pd.testing.assert_frame_equal(with_kinds.best_heads, alone.best_heads)


def test_another_aggregation_of_heads_is_correlated_beside_the_mean(artifacts):
    more = [
        Artifact({**one.arrays, "ca_strongest": one["ca_head"].max(axis=(0, 1))}, one.meta)
        for one in artifacts
    ]
    alone = correlation_tables(artifacts, poolings=POOLINGS, rows="all")
    tables = correlation_tables(more, poolings=POOLINGS, rows="all")
    row = pick(
        tables.utterances, utterance="u1", attention="ca_strongest", saliency="smh", **HEADLINE
    )
    first = more[0]
    expected = row_mean(pearsonr, first["ca_strongest"], first["smh"])
    assert row["value"] == pytest.approx(expected)
    assert "ca_strongest" in set(tables.mixing["attention"])
    rest = tables.summary[tables.summary["attention"] != "ca_strongest"]
    pd.testing.assert_frame_equal(rest.reset_index(drop=True), alone.summary)


def replace_attention(artifact, heads):
    return Artifact({**artifact.arrays, **attention_maps(heads)}, artifact.meta)
