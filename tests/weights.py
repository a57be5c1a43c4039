"""Real weights for tests: fetched once into the place where the workflow looks for them."""

import logging
from functools import cache
from pathlib import Path

from s2txai.study.config import load_models
from s2txai.study.fetch_model import fetch_model

ROOT = Path(__file__).resolve().parents[1]


@cache
def model_directory(name: str) -> Path:
    directory = ROOT / "resources" / "models" / name
    if not directory.exists():
        entry = load_models(ROOT / "config" / "models.yaml")[name]
        fetch_model(entry, directory, logging.getLogger(__name__))
    return directory
