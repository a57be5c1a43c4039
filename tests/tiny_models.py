"""Models with random weights of every family, saved as ``save_pretrained`` would; no network.

``TINY[family](directory)`` writes one. All hear 16 kHz and transcribe English; all but Whisper
predict words of :data:`WORDS`.
"""

from collections.abc import Callable
from pathlib import Path

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from transformers import (
    CanaryConfig,
    CanaryForConditionalGeneration,
    CohereAsrConfig,
    CohereAsrFeatureExtractor,
    CohereAsrForConditionalGeneration,
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    ParakeetFeatureExtractor,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
    SeamlessM4TTokenizer,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2ForSpeechToText,
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextForConditionalGeneration,
    Speech2TextTokenizer,
    Wav2Vec2FeatureExtractor,
)

from tests.tiny_conformer import save_conformer
from tests.tiny_whisper import save_tiny_whisper

WORDS = [
    f"▁{word}"
    for word in ["north", "east", "south", "west", "up", "down", "left", "right", "near", "far"]
]
PAD, UNKNOWN, START, EOS = "<pad>", "<unk>", "<s>", "</s>"
TAGS = [
    "<|startofcontext|>",
    "<|startoftranscript|>",
    "<|emo:undefined|>",
    "<|en|>",
    "<|it|>",
    "<|pnc|>",
    "<|noitn|>",
    "<|notimestamp|>",
    "<|nodiarize|>",
]


def save_network(network, directory: Path, spoken: set[int], seed: int) -> None:
    """Save a network after giving its matrices entries that let predictions differ.

    The libraries' own are too small. Only ``spoken`` tokens are predicted, and, after one of them,
    the end.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder = network.get_decoder()
    with torch.no_grad():
        for weights in network.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 1.5 / weights[0].numel() ** 0.5, generator=generator)
        # Else a tied embedding would predict the token that was read again and again.
        decoder.embed_tokens.weight /= 6
        norm = decoder.norm if hasattr(decoder, "norm") else decoder.layer_norm
        norm.weight.fill_(6)
    allowed = {*spoken, network.config.eos_token_id}
    network.generation_config.suppress_tokens = [
        token for token in range(network.config.vocab_size) if token not in allowed
    ]
    network.generation_config.begin_suppress_tokens = [network.config.eos_token_id]
    network.save_pretrained(directory)


def words_of(names: list[str]) -> set[int]:
    return {number for number, name in enumerate(names) if name in WORDS}


def word_tokenizer(names: list[str], **special: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(
        WordLevel({name: number for number, name in enumerate(names)}, unk_token=UNKNOWN)
    )
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN, **special)


def save_speech_to_text(directory: Path, *, languages: bool = False) -> None:
    """Write a Speech2Text; with ``languages`` one that translates into those of MuST-C."""
    targets = ["pt", "fr", "ru", "nl", "ro", "it", "es", "de"] if languages else []
    tags = [f"<lang:{language}>" for language in targets]
    names = [START, PAD, EOS, UNKNOWN, *tags, *WORDS]
    config = Speech2TextConfig(
        vocab_size=len(names),
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        conv_channels=16,
        input_feat_per_channel=16,
        max_source_positions=10,  # grows when it must, which gradients have to survive
        max_target_positions=12,
    )
    save_network(Speech2TextForConditionalGeneration(config), directory, words_of(names), seed=47)
    prefix = directory / "sentencepiece.bpe"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["other words give the letters"] * 5),
        model_prefix=str(prefix),
        vocab_size=40,
        hard_vocab_limit=False,
        user_defined_symbols=[*tags, *WORDS],
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(
        str({name: number for number, name in enumerate(names)}).replace("'", '"')
    )
    Speech2TextTokenizer(
        str(vocabulary), f"{prefix}.model", lang_codes="mustc" if languages else None
    ).save_pretrained(directory)
    Speech2TextFeatureExtractor(feature_size=16, num_mel_bins=16).save_pretrained(directory)


def _fast_conformer(**changes) -> dict:
    return {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "subsampling_conv_channels": 8,
        "num_mel_bins": 16,
        "conv_kernel_size": 5,
        "scale_input": False,
        **changes,
    }


def save_canary(directory: Path) -> None:
    names = [START, UNKNOWN, PAD, EOS, "<bos>", "▁", "<a>", *TAGS, *WORDS]
    config = CanaryConfig(
        encoder_config={"model_type": "parakeet_encoder", **_fast_conformer()},
        decoder_config={
            "vocab_size": len(names),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 20,
        },
        vocab_size=len(names),
    )
    save_network(CanaryForConditionalGeneration(config), directory, words_of(names), seed=35)
    word_tokenizer(names, eos_token=EOS, pad_token=PAD).save_pretrained(directory)
    ParakeetFeatureExtractor(feature_size=16).save_pretrained(directory)


def save_cohere_asr(directory: Path) -> None:
    names = [START, UNKNOWN, PAD, EOS, "<bos>", "▁", *TAGS, *WORDS]
    config = CohereAsrConfig(
        encoder_config={"model_type": "parakeet_encoder", **_fast_conformer(hidden_size=24)},
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=20,
        decoder_start_token_id=5,
    )
    save_network(CohereAsrForConditionalGeneration(config), directory, words_of(names), seed=34)
    word_tokenizer(names, eos_token=EOS, pad_token=PAD).save_pretrained(directory)
    CohereAsrFeatureExtractor(feature_size=16).save_pretrained(directory)


def save_seamless_m4t_v2(directory: Path) -> None:
    names = [PAD, UNKNOWN, START, EOS, *WORDS, "__eng__", "__ita__", "__fra__"]
    ids = {name: number for number, name in enumerate(names)}
    config = SeamlessM4Tv2Config(
        vocab_size=len(names),
        hidden_size=16,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        speech_encoder_layers=2,
        speech_encoder_attention_heads=2,
        speech_encoder_intermediate_size=32,
        feature_projection_input_dim=32,
        conv_depthwise_kernel_size=5,
        max_new_tokens=10,
    )
    network = SeamlessM4Tv2ForSpeechToText(config)
    network.generation_config = GenerationConfig(
        text_decoder_lang_to_code_id={
            name.strip("_"): number for name, number in ids.items() if name.startswith("__")
        }
    )
    save_network(network, directory, words_of(names), seed=59)
    tags = [name for name in names if name.startswith("__")]
    tokenizer = SeamlessM4TTokenizer(vocab=ids, merges=[], additional_special_tokens=tags)
    tokenizer.save_pretrained(directory)
    SeamlessM4TFeatureExtractor(feature_size=16, num_mel_bins=16).save_pretrained(directory)


def save_moonshine(directory: Path) -> None:
    names = [UNKNOWN, START, EOS, *WORDS]
    config = MoonshineConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=32,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        pad_head_dim_to_multiple_of=3,
        max_position_embeddings=12,
        pad_token_id=2,
    )
    save_network(MoonshineForConditionalGeneration(config), directory, words_of(names), seed=13)
    word_tokenizer(names, bos_token=START, eos_token=EOS).save_pretrained(directory)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(directory)


TINY: dict[str, Callable[[Path], None]] = {
    "whisper": save_tiny_whisper,
    "conformer": save_conformer,
    "speech-to-text": save_speech_to_text,
    "canary": save_canary,
    "seamless-m4t-v2": save_seamless_m4t_v2,
    "moonshine": save_moonshine,
    "cohere-asr": save_cohere_asr,
}
