"""Batches that fit: measured before the work, halved when memory runs out all the same."""

import weakref

import numpy as np
import psutil
import pytest
import torch

from s2txai.errors import UserError
from s2txai.models import memory
from s2txai.models.memory import (
    MOST,
    fitting_batch_size,
    free_memory,
    is_out_of_memory,
    smaller_batch,
)

CPU = torch.device("cpu")
MIB = 2**20


def no_memory():
    """Return what torch raises on a CPU, by asking it for more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.float64)
    return caught.value


def allocate(mib_each):
    return lambda n: np.ones(n * mib_each * MIB, np.uint8).sum()


def test_free_memory_is_what_the_system_says():
    assert 0 < free_memory(CPU) <= psutil.virtual_memory().total


def limited(root, group, limit, used, names=("memory.max", "memory.current")):
    folder = root / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Return the root of control groups, and a function that says which ones the process is in."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_MEMBERSHIPS", tmp_path / "memberships")
    return tmp_path / "cgroup", (tmp_path / "memberships").write_text


def test_a_limit_of_the_container_counts(cgroups):
    root, belong = cgroups
    belong("0::/\n")
    limited(root, "", 5000, 3000)
    assert free_memory(CPU) == 2000
    limited(root, "", "max", 3000)
    assert free_memory(CPU) > 2000


def test_the_tightest_limit_of_the_job_counts(cgroups):
    root, belong = cgroups
    belong("0::/slurm/job_7/step_0\n")
    limited(root, "slurm/job_7", 9000, 3000)
    limited(root, "slurm/job_7/step_0", "max", 2000)
    assert free_memory(CPU) == 6000
    limited(root, "slurm/job_7/step_0", 4000, 4100)
    assert free_memory(CPU) == 0


@pytest.mark.parametrize("group", ["slurm/job_7", ""])
def test_a_limit_of_version_1_counts(cgroups, group):
    """Within a container only the root of the groups can be seen."""
    root, belong = cgroups
    belong("9:cpu,cpuacct:/slurm/job_7\n4:memory:/slurm/job_7\n0::/\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    limited(root / "memory", group, 5000, 1500, names)
    assert free_memory(CPU) == 3500


def test_without_groups_the_system_counts(cgroups):
    assert free_memory(CPU) > 2**20


@pytest.mark.parametrize(("free_mib", "expected"), [(20_000, MOST["cpu"]), (800, 4), (200, 1)])
def test_batches_fit_into_free_memory(monkeypatch, free_mib, expected):
    monkeypatch.setattr(memory, "free_memory", lambda _: free_mib * MIB)
    # 70 % of the memory, at 100 MiB an input.
    assert fitting_batch_size(CPU, allocate(100)) == expected


def test_what_only_the_first_call_takes_is_not_counted(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda _: 1400 * MIB)
    asked, buffers = [], []

    def work(n):
        asked.append(n)
        if not buffers:
            buffers.append(np.ones(400 * MIB, np.uint8))
        return allocate(100)(n)

    assert fitting_batch_size(CPU, work) == 8
    assert asked == [1, 1, 2]


@pytest.mark.parametrize("fitting", [0, 1])
def test_measuring_may_run_out_of_memory(fitting):
    def work(n):
        if n > fitting:
            raise no_memory()

    if fitting:
        assert fitting_batch_size(CPU, work) == 1
    else:
        with pytest.raises(UserError, match="one input"):
            fitting_batch_size(CPU, work)


def test_halving_says_so(caplog):
    assert smaller_batch(16, no_memory()) == 8
    assert "Out of memory with batches of 16: going on with 8." in caplog.text
    assert smaller_batch(3, MemoryError()) == 1


def test_what_the_failed_pass_had_made_is_given_back():
    class Tensor:
        pass

    held = []

    def forward_pass():
        activations = Tensor()
        held.append(weakref.ref(activations))
        raise MemoryError

    try:
        forward_pass()
    except MemoryError as error:
        assert held[0]() is not None
        smaller_batch(2, error)
        assert held[0]() is None


def test_one_input_that_does_not_fit_is_a_sentence():
    with pytest.raises(UserError, match="Memory does not even hold a forward pass of one input"):
        smaller_batch(1, no_memory())


def test_other_errors_are_raised_again():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        smaller_batch(16, error)


@pytest.mark.parametrize(
    "message",
    [
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
    ],
)
def test_convolutions_without_a_workspace_are_halved_but_not_given_up(message):
    assert smaller_batch(16, RuntimeError(message)) == 8
    # Of a single input the error may mean a GPU without such a kernel.
    with pytest.raises(RuntimeError, match="nable to find"):
        smaller_batch(1, RuntimeError(message))


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(no_memory())
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))
