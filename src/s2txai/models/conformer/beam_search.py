"""Beam search of the paper's models, in the rules of the toolkit they were trained with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from s2txai.models.conformer.ctc import PrefixScorer
from s2txai.models.conformer.decoder import EOS, PAD, UNK

# From the last tokens [B, 1] of the hypotheses and the rows [B] of the earlier call that they
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
class Settings:
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
    settings: Settings,
    *,
    device: torch.device,
    scorer: PrefixScorer | None = None,
) -> list[Hypothesis]:
    """Search the best hypotheses of one utterance.

    A hypothesis ends when its end of sentence is among the best ``beam`` of ``2 beam`` candidates;
    the search ends with ``beam`` hypotheses, even if a better one could still come.

    Parameters
    ----------
    advance
        The decoder.
    settings
        How to search.
    device
        Where.
    scorer
        Scores prefixes by CTC; used with a ``ctc_weight``, from the second token on.

    Returns
    -------
    list of Hypothesis
        At most ``beam``, the best first.
    """
    beam = settings.beam
    tokens = torch.full((beam, 1), EOS, device=device)
    total = torch.zeros(beam, device=device, dtype=torch.float64)
    token_scores = torch.zeros((beam, 0), device=device, dtype=torch.float64)
    order: torch.Tensor | None = None
    prefixes = scorer.empty(beam) if scorer and settings.ctc_weight else None
    found: list[Hypothesis] = []
    for step in range(settings.last_step + 1):
        log_probs = advance(tokens[:, -1:], order)  # (beam, V)
        if scorer and prefixes and step > 0:
            continued = scorer.continuations(prefixes)
            # A prefix that cannot be is no better for what follows.
            gain = (continued - prefixes.score[:, None]).nan_to_num(nan=-torch.inf)
            log_probs = log_probs + settings.ctc_weight * gain
        log_probs = _allowed(log_probs, tokens, step, settings)
        scores = log_probs.to(total) + total[:, None] if step else log_probs[:1].to(total)
        n_candidates = min(2 * beam, scores.numel() - 1)
        best, places = scores.flatten().topk(n_candidates)
        rows, chosen = places // scores.shape[1], places % scores.shape[1]
        ends = (chosen == EOS) & best.isfinite()
        for place in ends[:beam].nonzero().flatten().tolist():
            if len(found) < beam:
                row, n_tokens = rows[place], step + 1
                found.append(
                    Hypothesis(
                        [*tokens[row, 1:].tolist(), EOS],
                        float(best[place]) / n_tokens**settings.length_penalty,
                        [*token_scores[row].tolist(), float(best[place] - total[row])],
                    )
                )
        if len(found) == beam:
            break
        kept = (~ends).nonzero().flatten()[:beam]
        rows, chosen, best = rows[kept], chosen[kept], best[kept]
        if scorer and prefixes and step > 0:
            prefixes = scorer.extend(prefixes, rows, chosen, continued[rows, chosen])
        token_scores = torch.cat([token_scores[rows], (best - total[rows])[:, None]], dim=1)
        tokens = torch.cat([tokens[rows], chosen[:, None]], dim=1)
        total, order = best, rows
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


def _allowed(
    log_probs: torch.Tensor, tokens: torch.Tensor, step: int, settings: Settings
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
        kept = log_probs[:, only].clone()
        log_probs.fill_(-torch.inf)
        log_probs[:, only] = kept
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
