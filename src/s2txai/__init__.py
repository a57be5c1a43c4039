"""How much of what a speech-to-text model does is explained by its cross-attention?

From a recording to maps::

    import s2txai

    model = s2txai.load_model("resources/models/whisper-tiny.en", family="whisper")
    explanation = s2txai.explain(model, "talk.wav", task="asr-en")
    explanation.rho("smx")

The names below are imported when they are first used, so that commands which need no model do not
wait for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2txai.api import Explanation, explain, load_model

__version__ = "0.1.0"
__all__ = ["Explanation", "__version__", "explain", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 's2txai' has no attribute '{name}'")
    from s2txai import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
