"""Visual Attention Redistribution (VAR).

Kang et al., "See What You Are Told: Visual Attention Sink in Large Multimodal Models", ICLR 2025, arXiv 2503.03321.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..pipelines.engine.declarations import AttentionEdit, Declaration, Reading
from ..pipelines.engine.run import prefill
from ..pipelines.method import Decoder, count, flag, number, share, whole_numbers
from .attention_sites import text_rows

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout

EPSILON = 1e-6
SINK_DIMS = 2  # how many dimensions are read off the first token; the paper's models have two


def relative(hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
    """|x[d]| / √(mean x² + 1e-6), in float32."""
    x = hidden.float()
    return x.abs() * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)


def sinkness(
    hidden: Float[Tensor, "batch position hidden"], dims: Int[Tensor, "batch dim"]
) -> Float[Tensor, "batch position"]:
    """φ(x) = max_{d ∈ D} |x[d]| / RMS(x); never above √hidden."""
    scaled = relative(hidden)
    wanted = dims.to(hidden.device)[:, None, :].expand(-1, hidden.shape[1], -1)
    return scaled.gather(2, wanted).amax(-1)


def redistribute(
    probabilities: Float[Tensor, "batch head query key"], image: Bool[Tensor, "batch key"],
    sinks: Bool[Tensor, "batch key"], rows: Bool[Tensor, "batch query"], move: float, min_nonsink: float,
    min_image: float,
) -> Float[Tensor, "batch head query key"]:  # fmt: skip
    """In rows with attention to the image, not mainly to its sinks, give a share of the sinks' attention to the rest.

    Ω = move·Σ_{j ∈ sinks} a_j;  sinks: (1 − move)·a_j;  other image tokens: a_j + Ω·a_j / Σ_{image∖sinks} a
    A row is edited if Σ_image a ≥ min_image and Σ_{image∖sinks} a ≥ min_nonsink·Σ_image a. Row sums stay.
    """
    p = probabilities.float()
    image, sinks = image[:, None, None, :], sinks[:, None, None, :]
    takers = image & ~sinks
    total = lambda where: (p * where).sum(-1, keepdim=True)
    mass, kept = total(image), total(takers)
    chosen = rows[:, None, :, None] & (mass >= min_image) & (kept >= min_nonsink * mass) & (kept > 0)
    budget = move * total(sinks)
    moved = torch.where(sinks, (1 - move) * p, p) + torch.where(takers, budget * p / kept.clamp(min=1e-12), 0.0)
    return torch.where(chosen, moved.to(probabilities.dtype), probabilities)


@dataclass(frozen=True)
class VAR(Decoder):
    r"""Take attention from sink tokens and give it to the rest of the image, in heads that attend to the image.

    A token is a sink of a layer if φ(x) ≥ τ for its residual stream entering the layer, φ in `sinkness` over
    `sink_dims`; found once, on the prompt. Then, row by row, `redistribute` (Eq. 4): p = `move`, ρ = `min_nonsink`, and
    `min_image`; τ: `tau`. Layers before `skip_first`, and with `skip_last` the last, are left alone; so is, with
    `require_visual_sink`, a layer in which no image token is a sink.

    Raises:
        ValueError: a value outside its range, or a dimension that the model does not have.

    Edited rows are the text after the image (with several, after the last) and the generated tokens; generated tokens
    are never sinks. Sinks are found in the plain model. φ cannot exceed √hidden, so that a narrow model may have no
    sink at all. The released code reads p as the share kept, so its 0.6 moves 0.4; tests φ > τ; edits the last layer;
    and, by a fault that is not reproduced, reuses the first question's sinks for all that follow. Which p made the
    tables cannot be told.
    """

    move: float = share(0.6, "share of the sinks' attention that is moved", "0 is plain decoding. Paper (p): 0.6.")
    min_nonsink: float = number(
        0.5, "least share of image attention on non-sinks",
        "Paper (ρ): 0.5 for hallucination, 0.8 general, 0.9 vision-centric tasks.",
    )  # fmt: skip
    min_image: float = number(0.2, "least attention on the image", "Paper: 0.2.")
    tau: float = number(20.0, "from which φ on a token is a sink", "Paper: 20.")
    sink_dims: Sequence[int] | None = whole_numbers(
        None, "hidden dimensions in which sinks are large",
        "By default the two largest of the first token of each layer. Paper: (1415, 2533) for LLaMA-2-7B, (2100, 4743) "
        "for 13B, (458, 2570) Qwen2-VL-7B, (3584,) InternVL2-8B.",
    )  # fmt: skip
    skip_first: int = count(2, "layers without edits at the start", "Code: 2.")
    skip_last: bool = flag(True, "leave the last layer alone", "Paper: yes.")
    require_visual_sink: bool = flag(
        False, "edit a layer only if an image token is a sink", "Code: yes; Eq. 4 does not require it."
    )

    inside = ("move",)
    neutral = {"move": 0}
    faint = {"move": 1e-7, "tau": 2, "min_nonsink": 0, "min_image": 0}
    released = {"move": 0.4, "skip_last": False, "require_visual_sink": True}
    by_model = {
        r"llava-(v)?1\.5-7b": {"sink_dims": (1415, 2533)},
        r"llava-(v)?1\.5-13b": {"sink_dims": (2100, 4743)},
        "qwen2-vl-7b": {"sink_dims": (458, 2570)},
        "internvl2-8b": {"sink_dims": (3584,)},
    }

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        layers = range(self.skip_first, len(lvlm.layers) - (1 if self.skip_last else 0))
        if not layers:  # an edit of no layer, so that the run says that nothing changed
            yield AttentionEdit((), partial(self.edit, {}, torch.empty(0)))
            return
        outside = [d for d in self.sink_dims or () if not 0 <= d < lvlm.hidden_size]
        if outside:
            raise ValueError(f"sink_dims={outside} are outside 0 to {lvlm.hidden_size - 1}, this model's hidden size")
        phi = Reading("var", layers, keep=partial(self.phi, inputs["attention_mask"]), of="input", queries="all")
        found = prefill(lvlm, inputs, [phi]).by_layer("var")
        real, image = inputs["attention_mask"].bool(), lvlm.image_mask(inputs["input_ids"])
        sinks = {layer: (value >= self.tau).to(real.device) & real for layer, value in found.items()}
        acting = [layer for layer in layers if bool(sinks[layer].any())]
        yield AttentionEdit(acting, partial(self.edit, sinks, image), changes="after_image")

    def phi(self, mask: Int[Tensor, "batch position"], hidden: Float[Tensor, "batch position hidden"]) -> Tensor:
        if self.sink_dims is not None:
            dims = torch.tensor([list(self.sink_dims)] * hidden.shape[0])
        else:
            first = mask.to(hidden.device).argmax(1)
            at_first = hidden[torch.arange(hidden.shape[0], device=hidden.device), first]
            dims = relative(at_first).topk(SINK_DIMS, dim=-1).indices
        return sinkness(hidden, dims)

    def edit(
        self, sinks: dict[int, Tensor], image: Tensor, probabilities: Float[Tensor, "batch head query key"],
        call: AttentionCall,
    ) -> Float[Tensor, "batch head query key"]:
        sinks_here = call.columns(call.sequences.align(sinks[call.layer], image))
        rows = text_rows(call, probabilities.shape[2])
        if self.require_visual_sink:
            rows = rows & (sinks_here & call.image).any(1, keepdim=True)
        return redistribute(
            probabilities, call.image, sinks_here, rows, self.move, self.min_nonsink, self.min_image
        )
