"""veridical: training-free mitigation and detection of hallucination in vision-language models.

    lvlm = veridical.load("embedded")
    answers = lvlm.caption("photo.png", decoders=["vista"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .flows.evaluation.results import Results
    from .pipelines.generate import generate, score
    from .pipelines.lvlm import LVLM
    from .pipelines.model.baking import bake
    from .pipelines.model.load import load
    from .pipelines.results import Answer, Generation
    from .pipelines.transformers_hook import mitigate

__version__ = "0.1.0"
__all__ = ["LVLM", "Answer", "Generation", "Results", "bake", "generate", "load", "mitigate", "score"]

_PUBLIC = {
    "load": "pipelines.model.load",
    "LVLM": "pipelines.lvlm",
    "Answer": "pipelines.results",
    "Generation": "pipelines.results",
    "generate": "pipelines.generate",
    "score": "pipelines.generate",
    "mitigate": "pipelines.transformers_hook",
    "bake": "pipelines.model.baking",
    "Results": "flows.evaluation.results",
}


_PACKAGES = ("datasets", "decoders", "detectors", "metrics", "plots", "testing")


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import veridical` loads neither torch nor Prefect."""
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'veridical' has no attribute {name!r}; public: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({"__version__", *__all__, *_PACKAGES})
