"""Beam search of the paper's models, in the rules of the toolkit they were trained with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from s2txai.models.conformer.ctc import PrefixScorer
from s2txai.models.conformer.decoder import EOS, PAD, UNK

# From the last tokens [B, 1] of all hypotheses and the rows [B] of the earlier call that they
# continue (None at the start) to log-probabilities [B, V] of the next.
Advance = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Hypothesis:
    """What the search found.

    Attributes
    ----------
    tokens
        Forced ones first, end of sentence last.
    score
        Mean log-probability of the tokens, or their sum over ``n ** length_penalty``.
    token_scores
        Log-probability of each token.
    """

    tokens: list[int]
    score: float
    token_scores: list[float]


@dataclass(frozen=True)
class SearchSettings:
    """How to search.

    Attributes
    ----------
    beam
        Hypotheses kept at each step, and returned.
    last_step
        The step, from 0, at which only end of sentence is left.
    forced
        Tokens that every hypothesis begins with; their log-probabilities count.
    no_repeat_ngram
        Length of n-grams that must not occur twice; 0 for none.
    unknown_penalty
        Taken from the log-probability of the unknown token.
    length_penalty
        Exponent of the number of tokens that a score is divided by.
    ctc_weight
        Of the CTC prefix score in each token's; needs a scorer.
    """

    beam: int
    last_step: int
    forced: Sequence[int] = ()
    no_repeat_ngram: int = 0
    unknown_penalty: float = 0.0
    length_penalty: float = 1.0
    ctc_weight: float = 0.0


def beam_search(
    advance: Advance,
    settings: SearchSettings,
    *,
    n: int,
    device: torch.device,
    scorers: Sequence[PrefixScorer] = (),
) -> list[list[Hypothesis]]:
    """Search the best hypotheses of N utterances, side by side.

    A hypothesis ends when its end of sentence is among the best ``beam`` of ``2 beam`` candidates;
    the search of an utterance ends with ``beam`` hypotheses, even if a better one could still come.

    Parameters
    ----------
    advance
        The decoder; rows are ``beam`` hypotheses of the first utterance, then of the second.
    settings
        How to search.
    n
        Number of utterances.
    device
        Where.
    scorers
        For each utterance, scores prefixes by CTC; used with a ``ctc_weight``, from the second
        token on.

    Returns
    -------
    list of list of Hypothesis
        For each utterance at most ``beam``, the best first.
    """
    beam = settings.beam
    tokens = torch.full((n * beam, 1), EOS, device=device)
    # Sums in double precision: the best two may be close.
    total = torch.zeros(n * beam, device=device, dtype=torch.float64)
    token_scores = torch.zeros((n * beam, 0), device=device, dtype=torch.float64)
    order: torch.Tensor | None = None
    joint = _Joint(scorers, beam) if settings.ctc_weight else None
    finished: list[list[Hypothesis]] = [[] for _ in range(n)]
    for step in range(settings.last_step + 1):
        log_probs = advance(tokens[:, -1:], order)  # (N beam, V)
        if joint and step > 0:
            log_probs = log_probs + settings.ctc_weight * joint.gain()
        scores = total[:, None] + _allowed(log_probs, tokens, step, settings).to(total)
        if step == 0:
            # All rows of an utterance are alike; the first is enough.
            scores.view(n, beam, -1)[:, 1:] = -torch.inf
        best, places = scores.view(n, -1).topk(min(2 * beam, scores.shape[1] * beam - 1))
        rows, symbols = places // scores.shape[1], places % scores.shape[1]
        rows = rows + beam * torch.arange(n, device=device)[:, None]  # of all utterances
        ends = (symbols == EOS) & best.isfinite()  # (N, candidates)
        for utterance, place in ends[:, :beam].nonzero().tolist():
            if len(finished[utterance]) < beam:
                row, score = rows[utterance, place], best[utterance, place]
                finished[utterance].append(
                    Hypothesis(
                        [*tokens[row, 1:].tolist(), EOS],
                        float(score) / (step + 1) ** settings.length_penalty,
                        [*token_scores[row].tolist(), float(score - total[row])],
                    )
                )
        if all(len(hypotheses) == beam for hypotheses in finished):
            break
        # The first candidates that do not end; a stable sort keeps their order.
        going_on = ends.int().sort(dim=1, stable=True).indices[:, :beam]
        rows, symbols, best = (x.gather(1, going_on).flatten() for x in (rows, symbols, best))
        if joint:
            joint.extend(rows, symbols, first=step == 0)
        token_scores = torch.cat([token_scores[rows], (best - total[rows])[:, None]], dim=1)
        tokens = torch.cat([tokens[rows], symbols[:, None]], dim=1)
        total, order = best, rows
    return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score) for hypotheses in finished]


class _Joint:
    """The CTC side of joint decoding: the prefixes of every utterance's hypotheses."""

    def __init__(self, scorers: Sequence[PrefixScorer], beam: int) -> None:
        self._scorers = scorers
        self._beam = beam
        self._prefixes = [scorer.empty(beam) for scorer in scorers]
        self._continued: list[torch.Tensor] = []

    def gain(self) -> torch.Tensor:
        """Return [N beam, V], what one more token adds to the log-probability of each prefix."""
        self._continued = [
            scorer.continuations(prefixes)
            for scorer, prefixes in zip(self._scorers, self._prefixes, strict=True)
        ]
        gains = [
            continued - prefixes.score[:, None]
            for continued, prefixes in zip(self._continued, self._prefixes, strict=True)
        ]
        # What follows a prefix that cannot be cannot be either.
        return torch.cat(gains).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)

    def extend(self, rows: torch.Tensor, tokens: torch.Tensor, *, first: bool) -> None:
        """Take up the ``tokens`` [N beam] after ``rows``; the first is the language's."""
        if first:
            return
        for number, (scorer, prefixes) in enumerate(
            zip(self._scorers, self._prefixes, strict=True)
        ):
            own = slice(number * self._beam, (number + 1) * self._beam)
            at, said = rows[own] - number * self._beam, tokens[own]
            scores = self._continued[number][at, said]
            self._prefixes[number] = scorer.extend(prefixes, at, said, scores)


def _allowed(
    log_probs: torch.Tensor, tokens: torch.Tensor, step: int, settings: SearchSettings
) -> torch.Tensor:
    """Return log-probabilities [B, V] with -inf where a token is not allowed."""
    log_probs = log_probs.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    log_probs[:, PAD] = -torch.inf
    log_probs[:, UNK] -= settings.unknown_penalty
    only: int | None = None
    if step >= settings.last_step:
        only = EOS
    elif step < len(settings.forced):
        only = settings.forced[step]
    elif step == 0:
        log_probs[:, EOS] = -torch.inf
    if only is not None:
        values = log_probs[:, only].clone()
        log_probs.fill_(-torch.inf)
        log_probs[:, only] = values
    if settings.no_repeat_ngram:
        for row, said in enumerate(tokens.tolist()):
            log_probs[row, _repeats(said, settings.no_repeat_ngram)] = -torch.inf
    return log_probs


def _repeats(said: Sequence[int], n: int) -> list[int]:
    """Return the tokens that would complete an n-gram that was said before."""
    if len(said) < n - 1:
        return []
    begun = tuple(said[len(said) - n + 1 :])
    return [
        said[start + n - 1]
        for start in range(len(said) - n + 1)
        if tuple(said[start : start + n - 1]) == begun
    ]
