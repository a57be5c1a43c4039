"""Decoding token by token, without computing anything twice."""

import torch

from s2txai.models.conformer.network import Conformer
from s2txai.models.occlusion import KeysAndValues


class Session:
    """The decoder of N utterances of the same length in a beam search.

    Parameters
    ----------
    network
        The model.
    states
        [N, steps, D], what the decoder reads.
    beam
        Hypotheses of each utterance; rows are those of the first, then those of the second.
    """

    def __init__(self, network: Conformer, states: torch.Tensor, beam: int) -> None:
        self._decoder = network.decoder
        self._reads = network.reads(states.repeat_interleave(beam, dim=0))
        self._past: list[KeysAndValues] | None = None

    def advance(self, last: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
        """Return log-probabilities [N beam, V] of the next token.

        Parameters
        ----------
        last
            int64 [N beam, 1], the last token of each hypothesis.
        order
            int64 [N beam], which row of the last call each hypothesis continues; None at the start.
        """
        past = self._past
        if past is not None and order is not None:
            past = [(keys[order], values[order]) for keys, values in past]
        hidden, self._past = self._decoder(last, self._reads, past)
        logits = self._decoder.logits(hidden[:, -1])
        # At least float32, whatever the precision of the network.
        wide = torch.promote_types(logits.dtype, torch.float32)
        return torch.log_softmax(logits.to(wide), dim=-1)
