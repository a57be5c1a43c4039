"""The paper's models: Conformer encoder, Transformer decoder; FAMA and the like."""

from s2txai.models.conformer.beam_search import Hypothesis, SearchSettings
from s2txai.models.conformer.checkpoint import load_fairseq_checkpoint
from s2txai.models.conformer.model import ConformerModel, load_conformer
from s2txai.models.conformer.network import Conformer
from s2txai.models.conformer.session import search

__all__ = [
    "Conformer",
    "ConformerModel",
    "Hypothesis",
    "SearchSettings",
    "load_conformer",
    "load_fairseq_checkpoint",
    "search",
]
