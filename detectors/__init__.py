"""Published detectors of hallucinated words, one per file. Adding one adds a row to NAMES.

A detector declares readings, then maps the record of a pass to a risk per token; higher means more likely
hallucinated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pipelines.registry import Method, lazily

if TYPE_CHECKING:
    from .confidence import Entropy as Entropy
    from .confidence import TokenProbability as TokenProbability
    from .dhcp import DHCP as DHCP
    from .image_attention import ImageAttention as ImageAttention
    from .logit_lens import LogitLens as LogitLens
    from .lookback_lens import LookbackLens as LookbackLens
    from .margin import Margin as Margin
    from .position import Position as Position
    from .vhd import VHD as VHD

NAMES = {
    "token_probability": Method("confidence:TokenProbability", paper="baseline", reads="logits"),
    "entropy": Method("confidence:Entropy", paper="baseline", reads="logits"),
    "margin": Method("margin:Margin", paper="baseline", reads="logits"),
    "position": Method("position:Position", paper="control", reads="nothing"),
    "image_attention": Method("image_attention:ImageAttention", paper="2411.16724", reads="attention"),
    "logit_lens": Method("logit_lens:LogitLens", paper="2410.02762", reads="states at the image tokens"),
    "lookback_lens": Method("lookback_lens:LookbackLens", paper="2407.07071", reads="attention"),
    "dhcp": Method("dhcp:DHCP", paper="2411.18659", reads="attention"),
    "vhd": Method("vhd:VHD", paper="2412.13949", reads="head outputs, with and without the image"),
}
__getattr__, __dir__ = lazily(__name__, NAMES)
