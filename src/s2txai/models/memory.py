"""How many inputs fit into one forward pass, and how they get there."""

import gc
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from s2txai.errors import UserError
from s2txai.log import logger

# Beyond these sizes a forward pass gets no faster, only larger.
MOST = {"cpu": 8, "cuda": 256}
# Inputs that are decoded at once unless a configuration says otherwise: a beam search takes most of
# its time for the first input of a batch.
BEAM_SEARCH_BATCH = 16
# Of a batch that is decoded, inputs that are encoded at once; elsewhere all. On one thread Whisper
# tiny.en and base took a fifth longer for each of 16 inputs together than one after the other.
ENCODED_AT_ONCE = {"cpu": 1}
# Of the free memory; the rest is for what the allocator scatters and other programs take.
SHARE = 0.7

# How libraries below torch say so, and torch itself where it raises a plain RuntimeError.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|DefaultCPUAllocator|can't allocate memory|_STATUS_ALLOC_FAILED", re.IGNORECASE
)
# What cuDNN says where a convolution's workspace finds no memory, and where it has no such kernel.
_NO_CONVOLUTION = re.compile(
    r"unable to find an engine|unable to find a valid cuDNN", re.IGNORECASE
)
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIPS = Path("/proc/self/cgroup")  # a line for each: number:controllers:path


def fitting_batch_size(device: torch.device, work: Callable[[int], object]) -> int:
    """Return how many inputs one forward pass takes in the memory that is free now.

    The largest power of two that fits, but no more than :data:`MOST`.

    Parameters
    ----------
    device
        Where the work is done.
    work
        Does the work for a number of inputs; called with 1 and 2 to measure the memory of each,
        after a first call that pays for what later ones reuse.

    Raises
    ------
    UserError
        If not even one input fits.
    """
    most = MOST.get(device.type, MOST["cpu"])
    peaks = []
    for n in (1, 1, 2):
        try:
            peaks.append(_peak(device, work, n))
        except (RuntimeError, MemoryError) as error:
            return smaller_batch(n, error)
    _, of_first, of_two = peaks
    if of_first is None or of_two is None:
        return most
    of_next = max(of_two - of_first, 1)
    fitting = max(1, int((SHARE * free_memory(device) - of_first) / of_next) + 1)
    return min(most, 1 << (fitting.bit_length() - 1))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on a device, without waiting for work that the device still has.

    A plain copy to a GPU ends only when all that was launched before it is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def smaller_batch(batch_size: int, error: BaseException) -> int:
    """Return half of a batch that did not fit, and say so; raise any other error again.

    Raises
    ------
    UserError
        If the batch was a single input.
    """
    # Where a single input has its convolutions, it is memory that more of them lack.
    lacks_workspace = batch_size > 1 and _NO_CONVOLUTION.search(str(error))
    if not is_out_of_memory(error) and not lacks_workspace:
        raise error
    if batch_size == 1:
        raise UserError(
            "Memory does not even hold a forward pass of one input: give the job more of it, take "
            "a smaller model or precision, or, unless the model pads its input, shorter utterances."
        ) from error
    half = batch_size // 2
    logger.warning("Out of memory with batches of %d: going on with %d.", batch_size, half)
    # What the failed pass had made so far hangs on the error.
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return half


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch or Python says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        _OUT_OF_MEMORY.search(str(error))
    )


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        # What torch keeps in reserve is free as well.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    in_system, in_cgroup = int(psutil.virtual_memory().available), _free_in_cgroup()
    return in_system if in_cgroup is None else min(in_system, in_cgroup)


def _free_in_cgroup() -> int | None:
    """Return what a container or a cluster's job leaves of the tightest of its limits."""
    try:
        memberships = _MEMBERSHIPS.read_text().splitlines()
    except OSError:
        return None
    free = []
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers == "":
            root, limit, usage = _CGROUP, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):  # version 1
            root, limit, usage = (
                _CGROUP / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        # A limit holds for all groups below; inside a container only the root can be seen.
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            free.append(_free_in(root.joinpath(*parts[:depth]), limit, usage))
    return min((n_bytes for n_bytes in free if n_bytes is not None), default=None)


def _free_in(group: Path, limit: str, usage: str) -> int | None:
    try:
        return max(0, int((group / limit).read_text()) - int((group / usage).read_text()))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _peak(device: torch.device, work: Callable[[int], object], n: int) -> int | None:
    """Return the bytes that work on n inputs takes at its height."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work(n)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        # Resets the high-water mark of this process (proc(5)).
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = psutil.Process().memory_info().rss
    work(n)
    peak = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(peak[1]) * 1024 - before if peak else None
