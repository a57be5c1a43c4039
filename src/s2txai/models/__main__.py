"""Print docs/models.md, which the registry of families says."""

from importlib.metadata import version

from s2txai.models.families import FAMILIES, Family
from s2txai.models.generation_settings import COMPARED, HONOURED, OVERRIDDEN

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
`decode/transcripts.csv` first. Families that never ran with trained weights are `experimental`: the
log says so on loading, and so does the page. Their beam search
is the library's `generate` with the beam of the run and what the next section lists of a
checkpoint's settings; only keys and values of cross-attention are projected once per input instead
of once per hypothesis.

"""

_SETTINGS = """\
## Which settings of a checkpoint act

On loading, tokenizer, network and settings are compared, and what does not fit is refused: a
tokenizer with another number of tokens than the network (one of Whisper may leave out all times),
ids of special tokens that are others, or text, in the tokenizer, weights that are missing or left
over or not finite, two sets of weights, CTranslate2 variables that are left over, integers without
a scale. An adapter is refused, in folders of the folder as well: merge it first. Which languages
and tasks a checkpoint has is read from its tokenizer and its settings, while planning where the
files are there.

Decoding, families of transformers and `whisper` (`generation_config.json`; where there is none,
`config.json`):

| settings | what happens |
|---|---|
"""

_FEATURES = """
Settings that change nothing (false, empty, neutral) are accepted anywhere. Where the lists of
suppressed tokens are missing, nothing is suppressed, and the log says so. `config.json` of
CTranslate2 may hold `suppress_ids` and `suppress_ids_begin`, which are honoured, `lang_ids`, which
must be tokens, and `alignment_heads`, which is not used; any other is refused. A `vocabulary.json`
beside it must number tokens as the tokenizer does.

Features (`preprocessor_config.json`, or `feature_extractor` in `processor_config.json`):

| family | honoured | must fit the network, else refused | not used | refused |
|---|---|---|---|---|
| `whisper` | none: the network says it all | `feature_size`, `chunk_length` (whole seconds of the \
context), `sampling_rate` 16000, `hop_length` 160, `n_fft` 400, `padding_value` 0, `dither` 0 | \
`n_samples`, `nb_max_frames`, `mel_filters`, `return_attention_mask`, `padding_side` | any other |
| `conformer` | `input_feat_per_channel`, `vocab_filename`, `bpe_tokenizer` of its `*.yaml` | \
number of symbols of the dictionary, `transforms` (`utterance_cmvn` alone) | any other: features \
are normalised by utterance | \
`ctc_compress_strategy`, `use_audio_input` |
| `speech-to-text` | `sampling_rate`, `do_ceptral_normalize`, `normalize_means`, \
`normalize_vars` | `num_mel_bins` | `dither`, `feature_size`, `padding_value`, \
`return_attention_mask`, `padding_side` | any other |
| `canary` | `sampling_rate`, `hop_length`, `n_fft`, `win_length`, `preemphasis` | \
`feature_size` | `padding_value`, `return_attention_mask`, `padding_side` | any other |
| `seamless-m4t-v2` | `stride`, `num_mel_bins` | `sampling_rate` 16000, `num_mel_bins` times \
`stride` | `feature_size`, `padding_value`, `return_attention_mask`, `padding_side` | any other |
| `moonshine` | `sampling_rate`, `do_normalize` | `feature_size` 1 | `padding_value`, \
`return_attention_mask`, `padding_side` | any other |
| `cohere-asr` | `sampling_rate`, `hop_length`, `n_fft`, `win_length`, `preemphasis`, `dither`, \
`max_audio_clip_s` | `feature_size` | `padding_value`, `overlap_chunk_second`, \
`min_energy_window_samples`, `return_attention_mask`, `padding_side` | any other |

## What else to know

"""

_PADDING = """
## Whisper and its padding

Whisper encodes 1,500 steps, 30 s, whatever the utterance lasts: a clip of 3 s covers 151 of them.
Cropping the context changes transcripts, but a mask over the speech hardly moves the padding. Masks
of SMX may therefore be scored by a cheaper pass (`smx.encoder: auto`): it computes the steps that
the speech reaches through the convolutions, and the first 64 steps of padding after them (or 128;
in proportion where a checkpoint's context is another). Keys and values of all others, which enter
the self-attention of each layer and the decoder's cross-attention, are predicted from those 64 by
what 8 masks show (ridge regression). How close its scores are is measured on every utterance, and
exact scores of some masks correct the mean ([definitions](definitions.md#saliency)). It is offered
where at most three quarters of the steps are computed. Everything else, decoding, attention, SMH,
gradients and deletion, uses the exact encoder.
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
    settings = _SETTINGS + "".join(_settings_rows()) + _FEATURES
    return _OPENING + "".join(rows) + between + settings + "".join(notes) + _PADDING + _CONFORMER


def _settings_rows() -> list[str]:
    """Return the table of what happens to the settings of decoding."""
    rows = [
        (HONOURED, "honoured"),
        (COMPARED, "compared with the tokenizer; those of languages and tasks honoured"),
        *((names, f"not used; in its place: {what}") for what, names in OVERRIDDEN.items()),
    ]
    cells = [f"| {', '.join(f'`{name}`' for name in names)} | {what} |\n" for names, what in rows]
    return [*cells, "| any other | refused |\n"]


def _row(name: str, family: Family) -> str:
    texts = [family.models, family.tasks, family.input, family.checkpoint, family.tested]
    mark = " (experimental)" if family.experimental else ""
    cells = [f"`{name}`{mark}", *texts]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    print(page(), end="")
