"""Step 1: the model's own hypothesis, and the table of its tokens."""

from collections.abc import Sequence

import numpy as np
import torch

from s2txai.datasets import Task
from s2txai.models.base import Model

AXES = {
    "tokens": ["token"],
    "pieces": ["token"],
    "roles": ["token"],
    "word_index": ["token"],
    "log_probs": ["token"],
    "prompt": ["prompt token"],
    "features": ["frame", "frequency"],
    "padding_value": [],
    "frame_shift": [],
    "subsampling": [],
    "time_only": [],
    "text": [],
    "at_limit": [],
}
UNITS = {"log_probs": "nat", "frame_shift": "s", "subsampling": "frames per encoder step"}


def decode(model: Model, audio: np.ndarray, task: Task, *, beam: int) -> dict[str, np.ndarray]:
    """Transcribe or translate one utterance.

    Parameters
    ----------
    model
        Any model.
    audio
        float32 [samples] at the model's sampling rate.
    task
        What to do with it.
    beam
        Width of the beam search.

    Returns
    -------
    dict
        Arrays of the ``decode`` artefact: tokens with their pieces, roles and words, the
        log-probability of each (teacher-forced), the text, whether the hypothesis reaches the
        token limit, and the input features [T, F].
    """
    prompt, forced = model.prompt(task), model.forced(task)
    features = model.features(audio)
    inputs = torch.from_numpy(features.values).to(model.device)[None]  # (1, T, F)
    states = model.encode(inputs, features.padding_value)
    (tokens,) = model.generate(
        states, prompt, beam=beam, max_new_tokens=model.facts.max_new_tokens, forced=forced
    )
    table = model.token_table(tokens)
    roles = ["forced"] * len(forced) + table.roles[len(forced) :]
    return {
        "tokens": np.array(tokens, dtype=np.int64),
        "pieces": np.array(table.pieces, dtype=np.str_),
        "roles": np.array(roles, dtype=np.str_),
        "word_index": np.array(table.word_index, dtype=np.int64),
        "log_probs": token_log_probs(model.decode(states, prompt, tokens)[0], tokens),
        "prompt": np.array(prompt, dtype=np.int64),
        "features": features.values,
        "padding_value": np.array(features.padding_value, dtype=np.float32),
        "frame_shift": np.array(model.facts.frame_shift, dtype=np.float32),
        "subsampling": np.array(model.facts.subsampling, dtype=np.int64),
        "time_only": np.array(model.facts.time_only),
        "text": np.array(model.text(tokens)),
        "at_limit": np.array(is_at_limit(model, tokens, table.roles)),
    }


def is_at_limit(model: Model, tokens: Sequence[int], roles: Sequence[str]) -> bool:
    """Return whether a hypothesis has as many tokens as the decoder can predict.

    What was said after it may be missing.
    """
    return len(tokens) >= model.facts.max_new_tokens or "eos" not in roles


def token_log_probs(logits: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
    """Return float32 [I], the log-probability of each token under logits [I, V], in nats."""
    rows = torch.log_softmax(logits, dim=-1)
    log_probs = rows.gather(1, torch.tensor(tokens, device=logits.device)[:, None])
    return np.asarray(log_probs[:, 0].cpu().numpy())
