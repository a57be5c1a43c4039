"""SeamlessM4T v2 (Seamless Communication 2023), from speech to text.

Two frames are stacked before the encoder; here features are frames again, and ``encode`` stacks
them. The adapter after the encoder takes every eighth of these pairs, starting half of its kernel
before the first. Where the number of frames is a multiple of all the subsampling, it therefore has
one step more than there are cells: what that step gets counts as attention outside the speech.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import SeamlessM4TFeatureExtractor, SeamlessM4Tv2ForSpeechToText

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.base import Facts, Features
from s2txai.models.options import NO_OPTIONS
from s2txai.models.pieces import WordPieces
from s2txai.models.transformers_base import TransformersModel
from s2txai.models.transformers_loading import (
    load_network,
    load_part,
    load_tokenizer,
    suppressed_tokens,
)

FRAME_SHIFT = 0.01  # seconds; the extractor's windows are fixed

# The codes of three letters that the model knows, by those of two.
_CODES = (
    "af:afr am:amh ar:arb as:asm az:azj be:bel bg:bul bn:ben bs:bos ca:cat cs:ces cy:cym "
    "da:dan de:deu el:ell en:eng es:spa et:est eu:eus fa:pes ff:fuv fi:fin fr:fra ga:gle "
    "gl:glg gu:guj he:heb hi:hin hr:hrv hu:hun hy:hye id:ind ig:ibo is:isl it:ita ja:jpn "
    "jv:jav ka:kat kk:kaz km:khm kn:kan ko:kor ky:kir lg:lug lo:lao lt:lit lv:lvs mk:mkd "
    "ml:mal mn:khk mr:mar ms:zlm mt:mlt my:mya nb:nob ne:npi nl:nld nn:nno no:nob ny:nya "
    "om:gaz or:ory pa:pan pl:pol ps:pbt pt:por ro:ron ru:rus sd:snd sk:slk sl:slv sn:sna "
    "so:som sr:srp sv:swe sw:swh ta:tam te:tel tg:tgk th:tha tl:tgl tr:tur uk:ukr ur:urd "
    "uz:uzn vi:vie yo:yor zh:cmn zu:zul"
)
LANGUAGES = dict(pair.split(":") for pair in _CODES.split())


def load_seamless_m4t_v2(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "SeamlessM4Tv2Model":
    """Load a SeamlessM4T v2, as a :class:`~s2txai.models.base.Loader`.

    Of a checkpoint that also speaks, only what turns speech into text is read.

    Raises
    ------
    UserError
        If the checkpoint does not list its languages.
    """
    network = load_network(SeamlessM4Tv2ForSpeechToText, directory, options).to(device)
    if not hasattr(network.generation_config, "text_decoder_lang_to_code_id"):
        raise UserError(
            f"{directory / 'generation_config.json'} has no text_decoder_lang_to_code_id, which "
            "lists the languages; take the file from the checkpoint this one was made of."
        )
    return SeamlessM4Tv2Model(
        network,
        load_tokenizer(directory),
        load_part(SeamlessM4TFeatureExtractor, directory),
        precision=precision,
    )


class SeamlessM4Tv2Model(TransformersModel):
    """SeamlessM4T v2 behind the interface of :class:`s2txai.models.base.Model`."""

    _cross_attention = "cross_attention"

    def __init__(
        self,
        network: SeamlessM4Tv2ForSpeechToText,
        tokenizer: Any,
        extractor: SeamlessM4TFeatureExtractor,
        *,
        precision: torch.dtype,
    ) -> None:
        config = network.config
        super().__init__(
            network,
            WordPieces(tokenizer, config.eos_token_id),
            Facts(
                sampling_rate=extractor.sampling_rate,
                frame_shift=FRAME_SHIFT,
                subsampling=extractor.stride * config.adaptor_stride**config.num_adapter_layers,
                max_new_tokens=config.max_new_tokens,
            ),
            precision=precision,
            **suppressed_tokens(network),
        )
        self._extractor = extractor
        self._start: int = config.decoder_start_token_id
        self._targets: dict[str, int] = network.generation_config.text_decoder_lang_to_code_id

    def prompt(self, task: Task) -> list[int]:
        """Return the decoder's start and the language of the text; the speech's is not stated.

        Raises
        ------
        UserError
            If the model does not write that language.
        """
        language = LANGUAGES.get(task.target, task.target)
        if language not in self._targets:
            raise UserError(
                f"This SeamlessM4T writes no '{task.target}', so it cannot do '{task.name}'; "
                f"it writes {', '.join(sorted(self._targets))}."
            )
        return [self._start, self._targets[language]]

    def features(self, audio: np.ndarray) -> Features:
        """Return log-mel frames, each bin normalised over the utterance.

        Of an odd number of frames the last is left out: the extractor masks the pair it is in.
        """
        output = self._extractor(audio, sampling_rate=self.facts.sampling_rate, return_tensors="np")
        pairs = output["input_features"][0][output["attention_mask"][0].astype(bool)]
        frames = pairs.reshape(-1, self._extractor.num_mel_bins)
        return Features(np.ascontiguousarray(frames, dtype=np.float32), padding_value=0.0)

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return pairs of frames [N, T / 2, 2 F] of [N, T, F]; T is even, see ``features``."""
        N, T, F = features.shape
        stride = self._extractor.stride
        return features.reshape(N, T // stride, stride * F)

    def encoder_attention(self, features: torch.Tensor, padding_value: float) -> np.ndarray:
        """Refuse: the layers work at eight times the rate of the adapter's output.

        Raises
        ------
        UserError
            Always.
        """
        raise UserError(
            "The encoder of SeamlessM4T works at another rate than its adapter's output, so its "
            "self-attention cannot be compared by steps; leave it out for this model."
        )

    def _encoder_parts(self) -> tuple[torch.nn.Module, Sequence[torch.nn.Module]]:
        speech = self._encoder
        top = [speech.inner_layer_norm, speech.adapter, speech.intermediate_ffn]
        return torch.nn.ModuleList([*top, speech.encoder.layer_norm]), speech.encoder.layers
