"""The paper's models: Conformer encoder, Transformer decoder; FAMA and the like."""

from s2txai.models.conformer.checkpoint import load_fairseq_checkpoint
from s2txai.models.conformer.model import ConformerModel, load_conformer
from s2txai.models.conformer.network import Conformer

__all__ = ["Conformer", "ConformerModel", "load_conformer", "load_fairseq_checkpoint"]
