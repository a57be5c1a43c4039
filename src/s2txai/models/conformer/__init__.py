"""The paper's models: Conformer encoder, Transformer decoder; FAMA and the like."""

from s2txai.models.conformer.network import Conformer

__all__ = ["Conformer"]
