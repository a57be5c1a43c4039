"""The six steps with a Conformer as large as FAMA small, with random weights.

``python -m benchmarks.conformer`` writes a checkpoint of 12 encoder and 6 decoder layers, width
1024 and 16,000 symbols to a temporary folder, runs every step in process on one clip with a few
masks, and prints seconds and the height of memory. ``--masks`` says how many. The model says
nothing sensible; what is measured is whether and how fast everything runs at this size.
"""

import argparse
import logging
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.clip import CLIP
from benchmarks.random_conformer import save_fama_small
from benchmarks.spes import hardware
from s2txai.datasets import Utterance, parse_task
from s2txai.models.handle import ModelHandle
from s2txai.models.process import configure_process
from s2txai.saliency.deletion_maps import map_names
from s2txai.saliency.design import MaskDesign
from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.attention import attention_shard
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.decode import decode_shard
from s2txai.steps.deletion import DeletionDesign, deletion_shard
from s2txai.steps.shard import Workplace
from s2txai.steps.smh import smh_shard
from s2txai.steps.smx import smx_shard
from s2txai.storage.artifacts import load_shard
from s2txai.storage.store import Store

TASK = parse_task("asr-en")
ROWS = 24  # random weights never end a sentence by themselves
POOLINGS = ["avg2d"]


def six_steps(root: Path, handle: ModelHandle, masks: int) -> dict[str, Callable[[], object]]:
    """Return what each step does, in order."""
    clip = Utterance("clip", CLIP, "en", "he was not an ill disposed young man")

    def place(step: str) -> Workplace:
        return Workplace(handle, Store(root / "store"), root / step)

    def read(*steps: str) -> list:
        return [load_shard(root / step, ["clip"], step) for step in steps]

    smx = MaskDesign(masks, n_segments=(2000, 2500, 3000))
    smh = MaskDesign(4 * masks, "zero")
    design = DeletionDesign(beam=1, percents=[0, 50, 100], seed=0)
    return {
        "load the model": lambda: handle.model,
        "decode, beam 5": lambda: decode_shard(place("decode"), [clip], TASK, beam=5),
        "attention": lambda: attention_shard(place("attention"), *read("decode")),
        f"smx, {masks} masks": lambda: smx_shard(place("smx"), *read("decode"), smx),
        f"smh, {4 * masks} masks": lambda: smh_shard(place("smh"), *read("decode"), smh),
        "aggregate": lambda: aggregate_shard(
            root / "aggregate", *read("decode", "attention", "smx", "smh"), poolings=POOLINGS
        ),
        "correlate": lambda: correlation_tables(*read("aggregate"), poolings=POOLINGS, rows="all"),
        f"deletion, {len(map_names(POOLINGS))} maps at 50 %": lambda: deletion_shard(
            place("deletion"),
            *read("decode", "smx", "aggregate"),
            design,
            poolings=POOLINGS,
        ),
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=24)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_fama_small(folder, max_target_positions=ROWS)
        handle = ModelHandle(
            "conformer",
            folder,
            device=arguments.device,
            precision=arguments.precision,
        )
        configure_process(precision=handle.precision, threads=arguments.threads)
        size = (folder / "checkpoint.pt").stat().st_size / 1e9
        print(f"Conformer of {size:.1f} GB, {hardware(handle.model.device)}, {handle.precision}")
        for name, work in six_steps(Path(temporary), handle, arguments.masks).items():
            started = time.perf_counter()
            work()
            print(f"    {name:32} {time.perf_counter() - started:8.1f} s", flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"    {'height of memory':32} {peak:8.1f} GiB")


if __name__ == "__main__":
    main()
