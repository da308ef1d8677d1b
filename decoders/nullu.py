"""Nullu: the null space of what hallucinated captions add, projected into the weights.

Yang et al., "Nullu: Mitigating Object Hallucinations in Large Vision-Language Models via HalluSpace Projection", CVPR
2025, arXiv 2412.13817.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_layers
from ..pipelines.engine.declarations import Declaration, ResidualEdit
from ..pipelines.inputs.text_states import text_states
from ..pipelines.method import count, layers_of
from ..pipelines.model.identity import identity
from ..pipelines.model.output_weights import mlp_bias, projected
from .fitted import Fits, Fitted, weights_field

if TYPE_CHECKING:
    from ..pipelines.engine.call import LayerCall
    from ..pipelines.model.layout import Inputs, Layout

MOST = 16  # directions of each layer that a fit keeps
QUESTION = "Please describe this image in detail."


def directions(
    scatter: Float[Tensor, "layer hidden hidden"], rank: int
) -> Float[Tensor, "layer hidden rank"]:
    """The `rank` main directions of differences M, largest first, from MᵀM: the eigenvectors of its largest values."""
    return torch.linalg.eigh(scatter).eigenvectors.flip(-1)[..., :rank].contiguous()


def bases(
    truthful: Float[Tensor, "pair layer hidden"], hallucinated: Float[Tensor, "pair layer hidden"], rank: int,
    layers: Sequence[int],
) -> dict[int, Float[Tensor, "hidden rank"]]:  # fmt: skip
    """V of every layer: the first `rank` right singular vectors of (truthful − hallucinated)/2, not centred.

    >>> true, false = torch.tensor([[[1.0, 0, 0]], [[1, 0, 0]]]), torch.tensor([[[1.0, 2, 0]], [[1, -4, 0]]])
    >>> bases(true, false, 1, [0])[0].abs().flatten().tolist()
    [0.0, 1.0, 0.0]
    """
    difference = (truthful - hallucinated).to(torch.promote_types(truthful.dtype, torch.float32)) / 2
    svd = lambda m: torch.linalg.svd(m, full_matrices=False).Vh[:rank].T.contiguous()
    return {layer: svd(difference[:, layer]) for layer in layers}


def project(x: Float[Tensor, "*any hidden"], basis: Float[Tensor, "hidden rank"]) -> Float[Tensor, "*any hidden"]:
    """x − V(Vᵀx), in float32 or more."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    v = basis.to(wide)
    return (wide - (wide @ v) @ v.T).to(x.dtype)


@dataclass(frozen=True)
class Nullu(Fits):
    r"""Take the main directions in which hallucinated captions differ from true ones out of what the MLPs write.

    m ← m − V·(Vᵀm),   V: the first `rank` right singular vectors of M, M_i = (true_i − hallucinated_i)/2

    m: (batch, position, hidden), the MLP's output without its bias, in `layers` (by default the upper half), at every
    position of every pass. true_i, hallucinated_i: mean over all real positions of the block's output for the image of
    pair i, the request and a caption of each kind. `weights`: a folder that `veridical fit nullu` wrote, or what
    `fit` or `from_bases` made. It is the same for every token, so that `veridical bake` writes it into a checkpoint.

    Raises:
        ValueError: nothing was fitted for this model, or no basis of that rank in a layer. OtherModel: the basis is of
            another model.

    The paper was not read first-hand; k is its README's for LLaVA-1.5 (argparse 8, class 2). `official()` differs in
    the fit alone: `fit(final_norm=True)` takes the last layer's states after the final norm, as the code does. The code
    rounds I − VVᵀ to float16 before the product, has one wrong layer offset for LLaVA of transformers, and cannot fit
    online; none of this is reproduced. Captions of different length change the mean's denominator; nothing corrects it.
    """

    rank: int = count(4, "k, directions that are taken out", "0 is plain decoding. README: 4; 8 MiniGPT-4, 16 mPLUG.")
    layers: Sequence[int] | None = layers_of("layers that are edited", "By default the upper half. README: 16 to 31.")
    weights: Any = weights_field()

    fits = "nullu"
    inside = ("rank",)
    neutral = {"rank": 0}
    released = {}

    @classmethod
    def from_bases(cls, bases: Mapping[int, Float[Tensor, "hidden most"]], **fields: Any) -> Self:
        """With bases of your own, layer -> (hidden, at least `rank`), orthonormal columns, the main one first.

        Without `layers` the upper half is edited where all of it has a basis, else every layer that has one.
        """
        return cls(weights=Fitted({str(layer): bases[layer] for layer in sorted(bases)}), **fields)

    @classmethod
    def fit(
        cls, lvlm: Layout, images: Sequence[Any], truthful: Sequence[str], hallucinated: Sequence[str],
        batch_size: int = 8, question: str = QUESTION, final_norm: bool = False,
    ) -> Self:  # fmt: skip
        """Find the bases of all layers on pairs of captions, by teacher-forced passes.

        As many directions are kept as there are pairs, 16 at most: the largest usable `rank`. final_norm: of the last
        layer's states, as the released code has it.

        Raises:
            ValueError: lists of different lengths, or no pair.
        """
        scatter: Any = None
        both = zip(*(text_states(lvlm, images, question, t, batch_size, "mean", final_norm)
                     for t in (truthful, hallucinated)), strict=True)  # fmt: skip
        for true, false in both:  # a batch of pairs at a time: (pair, layer, hidden)
            m = (true - false).double() / 2
            scatter = torch.einsum("pld,ple->lde", m, m) + (0 if scatter is None else scatter)
        if scatter is None:
            raise ValueError("nullu is fitted on pairs of captions, and there are none.")
        found = directions(scatter, min(MOST, len(truthful), scatter.shape[-1])).float()
        about = {"model": identity(lvlm), "pairs": len(truthful), "question": question, "final_norm": final_norm}
        return cls(weights=Fitted({str(layer): basis for layer, basis in enumerate(found)}, about))

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if found := self.bases(lvlm):
            biases = {layer: mlp_bias(lvlm, layer) for layer in found}
            yield ResidualEdit(list(found), partial(self.edit, found, biases), at="mlp")

    def edit(
        self, found: Mapping[int, Tensor], biases: Mapping[int, Tensor | None],
        output: Float[Tensor, "batch query hidden"], call: LayerCall,
    ) -> Tensor:  # fmt: skip
        bias = biases[call.layer]
        if bias is None:
            return project(output, found[call.layer])
        return project(output - bias, found[call.layer]) + bias

    def bases(self, lvlm: Layout) -> dict[int, Float[Tensor, "hidden rank"]]:
        """V of every edited layer, `rank` columns each."""
        if self.layers == () or not self.rank:
            return {}
        known, size, out = self.fitted(lvlm).tensors, len(lvlm.layers), {}
        upper = range(size // 2, size)
        held = sorted(int(name) for name in known if name.isdigit())
        default = upper if set(upper) <= set(held) else held
        for layer in check_layers(default if self.layers is None else self.layers, size, "Nullu"):
            basis = known.get(str(layer))
            if basis is None or basis.shape[0] != lvlm.hidden_size or basis.shape[1] < self.rank:
                found = "none" if basis is None else f"one of {tuple(basis.shape)}"
                raise ValueError(
                    f"nullu needs a basis of ({lvlm.hidden_size}, {self.rank} or more) in layer {layer}; found {found}."
                )
            out[layer] = basis[:, : self.rank]
        return out

    def baked(self, lvlm: Layout) -> dict[str, Tensor]:
        """The MLPs' last matrices with the projection in them, parameter name -> new tensor."""
        replaced = (projected(lvlm, layer, basis) for layer, basis in self.bases(lvlm).items())
        return {name: value for one in replaced for name, value in one.items()}
