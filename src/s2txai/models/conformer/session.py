"""Decoding token by token, without computing anything twice."""

import torch

from s2txai.models.conformer.beam_search import Hypothesis, SearchSettings, beam_search
from s2txai.models.conformer.ctc import PrefixScorer
from s2txai.models.conformer.decoder import EOS
from s2txai.models.conformer.network import Conformer
from s2txai.models.occlusion import KeysAndValues


def search(
    network: Conformer, states: torch.Tensor, valid: torch.Tensor, settings: SearchSettings
) -> list[list[Hypothesis]]:
    """Decode N utterances side by side, by attention or with CTC.

    Parameters
    ----------
    network
        The model.
    states, valid
        [N, T', D] and bool [N, T'], as :meth:`Conformer.encode` returns them.
    settings
        How to search; with a ``ctc_weight`` the first of the ``forced`` tokens is the language's.

    Returns
    -------
    list of list of Hypothesis
        For each utterance at most ``settings.beam``, the best first.

    Raises
    ------
    UserError
        If there is a ``ctc_weight``, but no joint CTC head.
    """
    return beam_search(
        Session(network, states, valid).advance,
        settings,
        n=len(states),
        device=states.device,
        scorers=_scorers(network, states, valid, settings) if settings.ctc_weight else (),
    )


def _scorers(
    network: Conformer, states: torch.Tensor, valid: torch.Tensor, settings: SearchSettings
) -> list[PrefixScorer]:
    """Return what the joint CTC head makes of each utterance, without its padding."""
    inputs = torch.tensor([[EOS, *settings.forced]], device=states.device)
    logits = network.joint_ctc_logits(states, valid, inputs.expand(len(states), -1))
    # At least float32, whatever the precision of the network.
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return [
        PrefixScorer(log_probs[steps])
        for log_probs, steps in zip(torch.log_softmax(wide, dim=-1), valid, strict=True)
    ]


class Session:
    """The decoder of N utterances in a beam search.

    Rows are the hypotheses of the first utterance, then those of the second; those of an utterance
    share its keys and values.

    Parameters
    ----------
    network
        The model.
    states, valid
        [N, T', D] and bool [N, T'], what the decoder reads.
    """

    def __init__(self, network: Conformer, states: torch.Tensor, valid: torch.Tensor) -> None:
        self._decoder = network.decoder
        self._reads = network.reads(states, valid)
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
