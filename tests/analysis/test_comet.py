"""COMET is optional: refused in one sentence without its package, additive with it."""

import sys

import numpy as np
import pytest

from s2txai.analysis.comet import comet
from s2txai.analysis.deletion_curves import score_deletion
from s2txai.analysis.intervals import interval, resamples
from s2txai.datasets import parse_task
from s2txai.errors import UserError
from tests.analysis.test_deletion_curves import GOOD, RANDOM, REFERENCES, deleted_utterance, pick

SOURCES = ["uno due tre", "quattro", "cinque", "sei sette"]
TASK = parse_task("st-it-en")

# Stands in for the package: the share of the reference's words that are heard, and a tenth for
# every word of the source, so that each of the three texts matters.
PACKAGE = """
from types import SimpleNamespace

asked = []


def load_from_checkpoint(path):
    return SimpleNamespace(predict=predict, path=path)


def predict(samples, batch_size, gpus, progress_bar):
    asked.extend((one["src"], one["mt"], one["ref"]) for one in samples)
    return SimpleNamespace(scores=[of(**one) for one in samples])


def of(src, mt, ref):
    words = ref.split()
    return sum(word in mt.split() for word in words) / len(words) + len(src.split()) / 10
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    (folder / "comet").mkdir(parents=True)
    (folder / "comet" / "__init__.py").write_text(PACKAGE)
    (folder / "unbabel_comet-2.2.6.dist-info").mkdir()
    (folder / "unbabel_comet-2.2.6.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: unbabel-comet\nVersion: 2.2.6\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("comet", None)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"weights")
    return path


def expected(n, heard):
    """Return what the package above says of an utterance."""
    words = REFERENCES[n].split()
    return sum(word in heard.split() for word in words) / len(words) + len(SOURCES[n].split()) / 10


def test_without_the_package_it_is_refused(checkpoint):
    with pytest.raises(UserError, match="'unbabel-comet', which is not installed: `pip install"):
        comet(checkpoint, SOURCES)


@pytest.mark.usefixtures("package")
def test_counts_add_up_to_the_mean_and_nothing_is_asked_twice(checkpoint):
    score = comet(checkpoint, SOURCES)
    heard = [of_percents[1] for of_percents in GOOD]
    counts = score.counts(REFERENCES, heard)
    mean = np.mean([expected(n, text) for n, text in enumerate(heard)])
    assert score.of_sums(counts.sum(axis=0)) == pytest.approx(100 * mean)
    np.testing.assert_array_equal(score.counts(REFERENCES, heard), counts)
    assert len(sys.modules["comet"].asked) == 4


@pytest.mark.usefixtures("package")
def test_curves_of_deletion_with_intervals(checkpoint):
    """Texts are scored as they are, whatever the normalisation of the other scores."""
    deleted = [deleted_utterance(n) for n in range(4)]
    for one in deleted:
        one.arrays["hypotheses"] = np.array(
            [[text.replace("a", "A") for text in row] for row in one.arrays["hypotheses"]]
        )
    found = score_deletion(
        REFERENCES, deleted, TASK, text_normalisation="whisper", diacritics="folded", seed=5,
        further_scores={"comet": comet(checkpoint, SOURCES)},
    )  # fmt: skip
    values = {
        name: 100 * np.array(
            [[expected(n, text.replace("a", "A")) for text in row] for n, row in enumerate(texts)]
        )
        for name, texts in (("ca_mean", GOOD), ("random", RANDOM))
    }  # fmt: skip
    curve = pick(found.curves, "ca_mean", "comet")
    np.testing.assert_allclose(curve["score"], values["ca_mean"].mean(axis=0))
    areas = {name: (one[:, 0] + 2 * one[:, 1] + one[:, 2]) / 4 for name, one in values.items()}
    area = pick(found.areas, "ca_mean", "comet")
    assert area["auc"] == pytest.approx(areas["ca_mean"].mean())
    assert area["above_random"] == pytest.approx((areas["ca_mean"] - areas["random"]).mean())
    ends = interval(areas["ca_mean"] @ resamples(4, seed=5).T / 4, 4)
    assert [area["auc_low"], area["auc_high"]] == pytest.approx(np.array(ends))
    stated = area["signature"]
    assert "metric:comet" in stated
    assert "text_normalisation:none" in stated
    assert "diacritics:kept" in stated
    # printf weights | sha256sum
    assert "comet:2.2.6,sha256:9a129038d9a0" in stated
    assert set(found.areas["metric"]) == {"bleu", "comet", "log_prob", "probability"}
