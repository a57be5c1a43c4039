"""Print docs/models.md, which the registry of families says."""

from importlib.metadata import version

from s2txai.models.families import FAMILIES, Family

_OPENING = """\
# Models

<!-- Written by `python -m s2txai.models > docs/models.md`. -->

A family is the code that loads a model and runs it. To use a checkpoint of your own, put its files
into a folder and name it in your configuration, or in `config/models.yaml`:

```yaml
models:
  my-model:
    family: whisper              # a name of the table
    description: Whisper small, fine-tuned on lectures.
    licence: internal
    languages: [it]              # of the speech
    translation_targets: [en]    # [] if it only transcribes
    source:
      path: /models/my-model     # the table lists what must be there
```

Other sources, the Hugging Face hub among them: [adding.md](adding.md#a-model-of-a-known-family).
Code that comes with a checkpoint is not run, unless its entry has
`options: {trust_remote_code: true}`, which needs a source on the hub at a fixed revision.

| family | models | tasks | input | your own checkpoint: a folder with | tested with |
|---|---|---|---|---|---|
"""

_BETWEEN = """
Families of transformers were tested with its version {version}. Random weights, in small networks,
show that rows, steps, masks and gradients are what they seem
(`tests/models/test_model_contract.py`), and that all steps run (`tests/models/test_families.py`);
not that a trained checkpoint is read as its authors meant, which its transcripts show: look at
`decode/transcripts.csv` first. Their beam search
is the library's `generate` with the beam of the run; penalties and suppressed tokens that the
checkpoint's `generation_config.json` names hold, its beam and its lengths do not.

## What else to know

"""

_CONFORMER = """
## The Conformer from Python

The network of the `conformer` family can be used by itself, on batches of different lengths.
`Conformer.from_state(state, **hyperparameters)` builds it from weights and settings that lie
elsewhere. `batch_unsafe_relative_shift=True`, for either, counts positions by the longest utterance
of the batch, as these models are trained; results then depend on the batch.

```python
from pathlib import Path

import torch

from s2txai.models.conformer import SearchSettings, load_fairseq_checkpoint, search

network = load_fairseq_checkpoint(Path("/models/fama-small/checkpoint.pt"))
features = torch.randn(2, 300, 80)  # filterbanks [N, T, F], normalised by utterance
lengths = torch.tensor([300, 212])  # frames; what follows them is ignored
tag = 61  # of the language, as the dictionary numbers it
tokens = torch.tensor([[2, tag, 8, 9]] * 2)  # what the decoder reads: end of sentence, tag, text
settings = SearchSettings(beam=5, last_step=40, forced=[tag], no_repeat_ngram=5, ctc_weight=0.2)
with torch.inference_mode():
    states, valid = network.encode(features, lengths)  # [N, T', D], [N, T']
    logits = network.decode(states, valid, tokens)  # [N, L, V]
    attention = network.cross_attention(states, valid, tokens)  # [N, layers, H, L, T']
    joint = network.joint_ctc_logits(states, valid, tokens)  # [N, T', V]; not every model has it
    output = network.encode_fully(features, lengths, keep_attention=True)
    # output.attention: one [N, H, T', T'] a layer; output.ctc_logits: [N, T', source symbols]
    hypotheses = search(network, states, valid, settings)  # of each utterance, best first
```
"""


def page() -> str:
    """Return docs/models.md."""
    families = {name: FAMILIES[name] for name in FAMILIES}
    rows = [_row(name, family) for name, family in families.items()]
    notes = [f"- `{name}`: {family.notes}\n" for name, family in families.items() if family.notes]
    between = _BETWEEN.format(version=version("transformers"))
    return _OPENING + "".join(rows) + between + "".join(notes) + _CONFORMER


def _row(name: str, family: Family) -> str:
    texts = [family.models, family.tasks, family.input, family.checkpoint, family.tested]
    cells = [f"`{name}`", *texts]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    print(page(), end="")
