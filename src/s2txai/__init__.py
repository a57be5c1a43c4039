"""How much of what a speech-to-text model does is explained by its cross-attention?"""

__version__ = "0.1.0"
