"""A Whisper with random weights and a context of one second, for tests without weights."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import WhisperConfig, WhisperForConditionalGeneration

from s2txai.models.whisper import WhisperModel

WORDS = 20
EOS, START, NO_TIMESTAMPS = WORDS, WORDS + 1, WORDS + 2


def _network(seed: int) -> WhisperForConditionalGeneration:
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=WORDS + 3,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=50,
        max_target_positions=10,
        init_std=0.4,  # the default leaves every prediction alike
        decoder_start_token_id=START,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    network = WhisperForConditionalGeneration(config)
    network.generation_config.suppress_tokens = [START, NO_TIMESTAMPS]
    network.generation_config.begin_suppress_tokens = [EOS]
    return network


def _tokenizer() -> Tokenizer:
    vocabulary = {f" word{number}": number for number in range(WORDS)} | {
        "<|endoftext|>": EOS,
        "<|startoftranscript|>": START,
        "<|notimestamps|>": NO_TIMESTAMPS,
    }
    return Tokenizer(WordLevel(vocabulary, unk_token=" word0"))


def tiny_whisper(seed: int = 0) -> WhisperModel:
    return WhisperModel(
        _network(seed).eval().requires_grad_(False),
        _tokenizer(),
        suppress_tokens=[START, NO_TIMESTAMPS],
        begin_suppress_tokens=[EOS],
        precision=torch.float32,
    )


def save_tiny_whisper(directory: Path) -> None:
    _network(0).save_pretrained(directory)
    _tokenizer().save(str(directory / "tokenizer.json"))
