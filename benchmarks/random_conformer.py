"""A Conformer as large as FAMA small, with random weights."""

from pathlib import Path

from tests.tiny_conformer import save_conformer

SYMBOLS = 16_000


def save_fama_small(folder: Path, **settings: int) -> None:
    """Write a checkpoint of 12 encoder and 6 decoder layers, width 1024, and what goes with it.

    ``settings`` are further hyperparameters.
    """
    heads = 16
    save_conformer(
        folder,
        n_fillers=SYMBOLS - 64,
        settings={"decoder_attention_heads": heads, **settings},
        width=1024,
        heads=heads,
        hidden=4096,
        kernel=31,
        channels=1024,
        layers=12,
        decoder_layers=6,
        n_source=SYMBOLS,
        spread=0.5,
    )
