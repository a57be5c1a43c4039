"""The handle: what is known of a model before it is loaded, and how it is loaded."""

import pytest
import torch

from s2txai.models.handle import ModelHandle
from tests.weights import model_directory

pytestmark = pytest.mark.model


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def handle(**options):
    return ModelHandle(
        "whisper", model_directory("whisper-tiny.en"), device="cpu", precision="auto", **options
    )


@pytest.mark.parametrize("n", [1, 3])
def test_a_job_computes_with_the_threads_it_was_given(threads, n):
    place = handle(threads=n)
    assert place.model.device.type == "cpu"
    assert torch.get_num_threads() == n


def test_identity_and_precision_are_known_without_loading(threads):
    torch.set_num_threads(2)
    place = handle(threads=1)
    assert place.precision == "float32"
    assert len(place.sha256) == 64
    assert torch.get_num_threads() == 2  # nothing was loaded
