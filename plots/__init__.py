"""Figures, by matplotlib (extra `plots`): each function takes `ax`, the axis to draw on, and returns it.

Without `ax` it is pyplot's current axis, as in a notebook's cell. The numbers come from elsewhere: attention from
`attention_maps`, rates and intervals from results, calibration from `veridical.metrics`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipelines.attention_maps import AttentionMaps, attention_maps
    from .attention import attention_overlay, head_map
    from .gate import gate_curve
    from .limits import limit_curve
    from .plane import hallucination_recall
    from .reliability import reliability_diagram
    from .risk import risk_along_caption

_WHERE = {
    "AttentionMaps": "..pipelines.attention_maps",
    "attention_maps": "..pipelines.attention_maps",
    "attention_overlay": ".attention",
    "head_map": ".attention",
    "gate_curve": ".gate",
    "hallucination_recall": ".plane",
    "limit_curve": ".limits",
    "reliability_diagram": ".reliability",
    "risk_along_caption": ".risk",
}
__all__ = [
    "AttentionMaps", "attention_maps", "attention_overlay", "gate_curve", "hallucination_recall", "head_map",
    "limit_curve", "reliability_diagram", "risk_along_caption",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Each name is imported when it is first used, so that listing them loads neither torch nor matplotlib."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
