"""Published detectors of hallucinated words, one per file. Adding one adds a row to NAMES.

A detector declares readings, then maps the record of a pass to a risk per token; higher means more likely
hallucinated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pipelines.registry import Method, lazily

if TYPE_CHECKING:
    from .agreement import AnswerAgreement as AnswerAgreement
    from .agreement import ObjectAgreement as ObjectAgreement
    from .confidence import Entropy as Entropy
    from .confidence import TokenProbability as TokenProbability
    from .dhcp import DHCP as DHCP
    from .glsim import GLSim as GLSim
    from .halp import HALP as HALP
    from .image_attention import ImageAttention as ImageAttention
    from .logit_lens import LogitLens as LogitLens
    from .lookback_lens import LookbackLens as LookbackLens
    from .margin import Margin as Margin
    from .p_true import PTrue as PTrue
    from .position import Position as Position
    from .vhd import VHD as VHD

NAMES = {
    "token_probability": Method("confidence:TokenProbability", paper="baseline", reads="logits", cost="nothing"),
    "entropy": Method("confidence:Entropy", paper="baseline", reads="logits", cost="nothing"),
    "margin": Method("margin:Margin", paper="baseline", reads="logits", cost="nothing"),
    "position": Method("position:Position", paper="control", reads="nothing", cost="nothing"),
    "image_attention": Method(
        "image_attention:ImageAttention", paper="2411.16724", reads="attention",
        cost="the attention of its layers again",
    ),
    "logit_lens": Method(
        "logit_lens:LogitLens", paper="2410.02762", reads="states at the image tokens",
        cost="every state of the image through the head, once",
    ),
    "lookback_lens": Method(
        "lookback_lens:LookbackLens", paper="2407.07071", reads="attention",
        cost="the attention of all layers again",
    ),
    "dhcp": Method("dhcp:DHCP", paper="2411.18659", reads="attention", cost="the attention of all layers again"),
    "vhd": Method(
        "vhd:VHD", paper="2412.13949", reads="head outputs, with and without the image",
        cost="a second prompt that is decoded along",
    ),
    "glsim": Method(
        "glsim:GLSim", paper="2508.19972", reads="states of words, of the prompt, at image tokens",
        cost="the image's last states through the head, once",
    ),
    "halp": Method(
        "halp:HALP", paper="HALP", reads="one state of the prompt, before the first token",
        cost="nothing; before an answer, a prefill",
    ),
    "object_agreement": Method(
        "agreement:ObjectAgreement", paper="2303.08896", reads="further captions",
        cost="further captions, 5 by default",
    ),
    "answer_agreement": Method(
        "agreement:AnswerAgreement", paper="2302.09664", reads="further answers",
        cost="further answers, 10 by default",
    ),
    "p_true": Method(
        "p_true:PTrue", paper="2207.05221", reads="the model's answer about its answer",
        cost="a prompt and a token per answer, or per object",
    ),
}
__getattr__, __dir__ = lazily(__name__, NAMES)
