"""Log-probabilities of prefixes under CTC, for decoding with attention and CTC together.

The recursion of Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech
Recognition", algorithm 2.
"""

from dataclasses import dataclass

import torch

from s2txai.models.conformer.decoder import EOS


@dataclass(frozen=True)
class Prefixes:
    """Prefixes of a beam.

    Attributes
    ----------
    ends
        float [B, T', 2], log-probability that the first t + 1 steps give the prefix, their last
        symbol being the prefix's last token (0) or blank (1).
    last
        int64 [B], the last token; -1 for the empty prefix.
    score
        float [B], log-probability of the prefix with any continuation.
    """

    ends: torch.Tensor
    last: torch.Tensor
    score: torch.Tensor


class PrefixScorer:
    """Scores continuations of prefixes.

    Parameters
    ----------
    log_probs
        float [T', V] of one utterance, without padding; the last symbol is the blank.
    """

    def __init__(self, log_probs: torch.Tensor) -> None:
        self._log_probs = log_probs
        self._blank = log_probs.shape[1] - 1

    def empty(self, n: int) -> Prefixes:
        """Return ``n`` empty prefixes."""
        blanks = self._log_probs[:, self._blank].cumsum(0)  # (T',)
        ends = torch.stack([torch.full_like(blanks, -torch.inf), blanks], dim=1)
        return Prefixes(
            ends.expand(n, -1, -1),
            torch.full((n,), -1, device=blanks.device),
            blanks.new_zeros(n),
        )

    def continuations(self, prefixes: Prefixes) -> torch.Tensor:
        """Return log-probabilities [B, V] of each prefix with one more token.

        For end of sentence that of the prefix as the whole transcript; the blank is no token.
        """
        entry = self._entry(prefixes)  # (B, T')
        scores = torch.logsumexp(entry[:, :, None] + self._log_probs, dim=1)  # (B, V)
        # Said twice, a token needs a blank between.
        repeated = self._entry(prefixes, blank_only=True)
        for row, token in enumerate(prefixes.last.tolist()):
            if token >= 0:
                scores[row, token] = torch.logsumexp(
                    repeated[row] + self._log_probs[:, token], dim=0
                )
        scores[:, EOS] = torch.logsumexp(prefixes.ends[:, -1], dim=1)
        scores[:, self._blank] = -torch.inf
        return scores

    def extend(
        self, prefixes: Prefixes, rows: torch.Tensor, tokens: torch.Tensor, scores: torch.Tensor
    ) -> Prefixes:
        """Return prefixes ``rows`` [B] with ``tokens`` [B] after them, whose ``scores`` are known.

        ``scores`` is [B], of :meth:`continuations`.
        """
        continued = Prefixes(prefixes.ends[rows], prefixes.last[rows], prefixes.score[rows])
        entry = torch.where(
            (tokens == continued.last)[:, None],
            self._entry(continued, blank_only=True),
            self._entry(continued),
        )  # (B, T')
        spoken = self._log_probs[:, tokens].T  # (B, T')
        blank = self._log_probs[:, self._blank]  # (T',)
        ends = torch.full_like(continued.ends, -torch.inf)
        ends[:, 0, 0] = entry[:, 0] + spoken[:, 0]
        for step in range(1, ends.shape[1]):
            before = ends[:, step - 1]
            ends[:, step, 0] = torch.logaddexp(before[:, 0], entry[:, step]) + spoken[:, step]
            ends[:, step, 1] = torch.logaddexp(before[:, 0], before[:, 1]) + blank[step]
        return Prefixes(ends, tokens, scores)

    def _entry(self, prefixes: Prefixes, *, blank_only: bool = False) -> torch.Tensor:
        """Return [B, T'], log-probability that the prefix is complete just before each step."""
        complete = prefixes.ends[:, :, 1] if blank_only else torch.logsumexp(prefixes.ends, dim=2)
        # Before the first step only the empty prefix is complete.
        first = torch.where(prefixes.last < 0, 0.0, -torch.inf).to(complete)
        return torch.cat([first[:, None], complete[:, :-1]], dim=1)
