"""Decoding one utterance token by token, without computing anything twice."""

import torch

from s2txai.models.conformer.network import Conformer
from s2txai.models.occlusion import KeysAndValues


class Session:
    """The decoder of one utterance in a beam search.

    Parameters
    ----------
    network
        The model.
    states
        [1, steps, D], what the decoder reads.
    beam
        Hypotheses that are continued together.
    """

    def __init__(self, network: Conformer, states: torch.Tensor, beam: int) -> None:
        self._decoder = network.decoder
        self._reads = network.reads(states.expand(beam, -1, -1))
        self._past: list[KeysAndValues] | None = None

    def advance(self, last: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
        """Return log-probabilities [B, V] of the next token.

        Parameters
        ----------
        last
            int64 [B, 1], the last token of each hypothesis.
        order
            int64 [B], which row of the last call each hypothesis continues; None at the start.
        """
        past = self._past
        if past is not None and order is not None:
            past = [(keys[order], values[order]) for keys, values in past]
        hidden, self._past = self._decoder(last, self._reads, past)
        logits = self._decoder.logits(hidden[:, -1])
        # At least float32, whatever the precision of the network.
        wide = torch.promote_types(logits.dtype, torch.float32)
        return torch.log_softmax(logits.to(wide), dim=-1)
