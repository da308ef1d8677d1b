"""Published methods that mitigate hallucination while decoding, one per file. Adding one adds a row to NAMES."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pipelines.registry import Method, lazily

if TYPE_CHECKING:
    from .adhh import ADHH as ADHH
    from .agla import AGLA as AGLA
    from .avc import AVC as AVC
    from .code import CODE as CODE
    from .deco import DeCo as DeCo
    from .dola import DoLa as DoLa
    from .gate import Gate as Gate
    from .greedy import Greedy as Greedy
    from .heads_guided import HeadsGuided as HeadsGuided
    from .helpd import HELPD as HELPD
    from .icd import ICD as ICD
    from .imbalanced import Imbalanced as Imbalanced
    from .m3id import M3ID as M3ID
    from .marine import MARINE as MARINE
    from .nullu import Nullu as Nullu
    from .opera import OPERA as OPERA
    from .pai import PAI as PAI
    from .project_away import ProjectAway as ProjectAway
    from .rbd import RBD as RBD
    from .ritual import RITUAL as RITUAL
    from .sid import SID as SID
    from .sla import SLA as SLA
    from .spin import SPIN as SPIN
    from .vaf import VAF as VAF
    from .var import VAR as VAR
    from .vcd import VCD as VCD
    from .vhr import VHR as VHR
    from .vista import VISTA as VISTA
    from .vsv import VSV as VSV
    from .vti import VTI as VTI

NAMES = {
    "greedy": Method("greedy:Greedy", changes="nothing", cost="1 forward per token"),
    "vcd": Method(
        "vcd:VCD", paper="2311.16922",
        changes="logits, against a noised image",
        cost="2 forwards per token",
        differs=(
            "The released code draws its noise from the global generator; here the method has its own. official() is "
            "the same otherwise."
        ),
    ),
    "icd": Method(
        "icd:ICD", paper="2403.18715",
        changes="logits, against a disturbed prompt",
        cost="2 forwards per token",
        differs=(
            "The paper, as recalled, has l − α·l′; the default is the code's (1 + α)·l − α·l′. The code disturbs "
            "LLaVA's system prompt or InstructBLIP's Q-Former, official() only takes its words."
        ),
    ),
    "m3id": Method(
        "m3id:M3ID", paper="2403.14003",
        changes="logits, against the prompt without its image",
        cost="2 forwards per token",
        differs=(
            "No code of the authors is known; the defaults are those with which AvisC's code compares. official() is "
            "the same."
        ),
    ),
    "avc": Method(
        "avc:AVC", paper="2405.17820",
        changes="logits, against the blind image tokens alone",
        cost="2 forwards per token, 1 extra prefill",
        differs=(
            "The paper has α = 2.5 or 3, the released POPE and MME scripts, and official(), 1. The code takes mean and "
            "deviation over the batch, which is not reproduced."
        ),
    ),
    "agla": Method(
        "agla:AGLA", paper="2406.12718",
        changes="logits, with those of a masked image",
        cost="2 forwards per token, and once per image and prompt a matcher's pass with gradient",
        differs=(
            "The released sampler gives both branches one cache, so that the masked image counts for the first token "
            "alone. official() does the same."
        ),
    ),
    "rbd": Method(
        "rbd:RBD", paper="2409.06485 (our reading of its abstract)",
        changes="logits, with a noised image and one of significant tokens",
        cost="3 forwards per token, 1 extra prefill",
        differs=(
            "No code was released, and the paper's method could not be read: formula and defaults are ours. official() "
            "is the same."
        ),
    ),
    "var": Method(
        "var:VAR", paper="2503.03321",
        changes="attention after the softmax",
        cost="1 forward per token, 1 extra prefill",
        differs=(
            "The code moves 0.4 (its p is the share kept), edits the last layer and wants a visual sink; official() "
            "does so. It also keeps the first question's sinks for all that follow, which is not reproduced."
        ),
    ),
    "vhr": Method(
        "vhr:VHR", paper="2412.13949",
        changes="head outputs before the output projection",
        cost="1 forward per token, 1 extra prefill of two rows",
        differs=(
            "The released code could not be read; a port of it squares the distance, which changes what the filter "
            "removes. official() is the same as the paper."
        ),
    ),
    "vsv": Method(
        "vsv:VSV", paper="2502.03628",
        changes="residual stream of every layer",
        cost="1 forward per token, 1 extra prefill of two rows",
        differs=(
            "The code steers the MLP's output and not the block's, by unit vectors with a gain of 1 to 2, and adds 1 "
            "to dimension 0 of layer 0. official() does so."
        ),
    ),
    "sla": Method(
        "sla:SLA", paper="2502.03628",
        changes="logits, with those of late layers",
        cost="1 forward per token",
        differs=(
            "The paper mixes five blocks below the last in, the code six (25 to 30 of 32). official() has the code's."
        ),
    ),
    "vista": Method(
        "vista:VISTA", paper="2502.03628",
        changes="residual stream of every layer, and logits",
        cost="1 forward per token, 1 extra prefill of two rows",
        differs=(
            "The code steers the MLP's output by unit vectors and mixes six blocks in, where the paper steers the "
            "block's and mixes five. official() does as the code."
        ),
    ),
    "pai": Method(
        "pai:PAI", paper="2407.21771",
        changes="attention before the softmax, and logits against the prompt without its image",
        cost="2 forwards per token; 1 with gamma=1",
        differs=(
            "The paper chooses layers by an attention prior, the code takes all from the third on, and so do the "
            "defaults. official() is the same."
        ),
    ),
    "dola": Method(
        "dola:DoLa", paper="2309.03883",
        changes="logits, against an earlier layer",
        cost="1 forward per token, and the head once per candidate layer",
        differs=(
            "The code's divergence is ½·KL(m ‖ p) + ½·KL(m ‖ q), as official() has it. It also averages over the batch "
            "when it chooses a layer, which is not reproduced."
        ),
    ),
    "deco": Method(
        "deco:DeCo", paper="2410.11779",
        changes="logits, with those of a preceding layer",
        cost="1 forward per token, and the head once per candidate layer",
        differs=(
            "The code's argument table has α = 0.5, its scripts 0.6; it decodes one sample greedily. official() is the "
            "same as the default."
        ),
    ),
    "imbalanced": Method(
        "imbalanced:Imbalanced", paper="2501.12206",
        changes="attention before the softmax, and logits against the prompt without its image",
        cost="2 forwards per token (1 with gamma=1), 1 extra pass of the vision encoder",
        differs=(
            "The paper's best β (summary) is 0.4, the code's and official()'s 0.3. The per-head amplification of the "
            "first abstract is in no released code."
        ),
        families=(
            "models with a CLIP vision encoder that reads whole images, one image token per patch (LLaVA); no other "
            "has the class token that is read"
        ),
    ),
    "helpd": Method(
        "helpd:HELPD", paper="2409.20429 (what is known of its decoding)",
        changes="logits, by the attention that each candidate would pay",
        cost="2 forwards per token, the second of all candidates at once",
        differs=(
            "The released repository has no such penalty: its scripts run OPERA's, and so does official(). The paper's "
            "β, window and scales are not known; the defaults are ours."
        ),
    ),
    "opera": Method(
        "opera:OPERA", paper="2311.17911",
        changes="logits, by the attention that each candidate would pay; goes back from over-trust",
        cost="2 forwards per token, the second of all candidates at once; for each return 1 per token that stays",
        differs=(
            "official() has the code's float16, votes by place among the beams, and its step chosen anew. Not "
            "reproduced: errors taken for \"go on\", ranking by length with the prompt, samples that decide for others."
        ),
    ),
    "ritual": Method(
        "ritual:RITUAL", paper="2405.17821",
        changes="logits, with those of a randomly transformed image",
        cost="2 forwards per token",
        differs=(
            "The paper's text was not read: formula and values are the code's, which applies to sampling alone and "
            "whose draws depend on all questions before; neither is reproduced. official() is the same."
        ),
    ),
    "sid": Method(
        "sid:SID", paper="2408.02032",
        changes="logits, against the least attended image tokens alone",
        cost="2 forwards per token",
        differs=(
            "Layer 3 and 10 % of the tokens are the paper's as others quote them; the code has layer 2 and 100 tokens, "
            "and in greedy decoding no cut. official() does so. One choice for a whole batch is not reproduced."
        ),
    ),
    "code": Method(
        "code:CODE", paper="2406.01920",
        changes="logits, against the model's own description in the image's place",
        cost="2 forwards per token, one description per image",
        differs=(
            "Formula and values are the released code's; the paper's text was not read. Its start token in front of "
            "the description, its half precision and its D above 1 are not reproduced. official() is the same."
        ),
    ),
    "marine": Method(
        "marine:MARINE", paper="2402.08680",
        changes="logits, with those under a prompt that names the image's objects",
        cost="2 forwards per token, after a detector of objects",
        differs=(
            "The sentence with the objects is ours. The released code drops masks, so that answers depend on what "
            "shares the batch, and draws one of four sentences; neither is reproduced. official() is the same."
        ),
    ),
    "vaf": Method(
        "vaf:VAF", paper="2503.13107",
        changes="attention before the softmax",
        cost="1 forward per token",
        differs=(
            "The paper's text could not be read: values are those of the released script, for all heads, where the "
            "paper takes some. The code's fixed columns are not reproduced. official() is the same."
        ),
    ),
    "heads_guided": Method(
        "heads_guided:HeadsGuided", paper="2411.16724",
        changes="attention before the softmax",
        cost="1 forward per token",
        differs=(
            "The code's README leaves out the last layer, its script and the paper do not. official() is the same as "
            "the default."
        ),
    ),
    "spin": Method(
        "spin:SPIN", paper="2505.16411",
        changes="head outputs before the output projection",
        cost="1 forward per token",
        differs=(
            "The abstract edits each text query token (queries=text), the code the newest alone, and so do the "
            "defaults; values are its README's for CHAIR. official() is the same."
        ),
    ),
    "project_away": Method(
        "project_away:ProjectAway", paper="2410.02762",
        changes="the image tokens' states in one layer: given objects are erased",
        cost="1 forward per token, 1 extra prefill of a short row per word",
        differs=(
            "The defaults are the released demo's, which exchanges the paper's two layers for InstructBLIP; official() "
            "is the same. The code projects a whole batch on its first row's states, which is not reproduced."
        ),
    ),
    "nullu": Method(
        "nullu:Nullu", paper="2412.13817",
        changes="the MLPs' outputs in the upper half, without the main directions of hallucinated captions",
        cost="1 forward per token; none once it is baked; fitted once on pairs of captions",
        differs=(
            "The code takes the last layer's states after the final norm, which fit(final_norm=True) does; official() "
            "is the same otherwise. It rounds the projection to float16 before the product, which is not reproduced."
        ),
    ),
    "adhh": Method(
        "adhh:ADHH", paper="Yang et al., ICLR 2025",
        changes="attention after the softmax: text is silenced in a few heads",
        cost="1 forward per token; heads are found once, by one row per head and word",
        differs=(
            "The code adds up a batch's masses before it compares them and counts image tokens by numbers that fit one "
            "prompt; neither is reproduced. official() is the same."
        ),
    ),
    "vti": Method(
        "vti:VTI", paper="2410.15778",
        changes="the MLPs' outputs in every layer, and with alpha_image in the vision tower",
        cost="1 forward per token; fitted once on pairs of captions; alpha_image needs images of one size",
        differs=(
            "The paper, as recalled, has principal directions per layer, the code and the defaults one over all layers "
            "and the mean. official() is the same; the code's slips are a mode of the fit."
        ),
    ),
    "gate": Method(
        "gate:Gate",
        changes="what its decoder changes, where its detector's risk is high",
        cost="its decoder's and its detector's",
    ),
}
__getattr__, __dir__ = lazily(__name__, NAMES)
