"""VTI's directions: what tells true captions from hallucinated ones, and masked images from whole ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.plan import claimed
from ..pipelines.inputs.prepare import prepare
from ..pipelines.inputs.text_states import text_states
from ..pipelines.model.compiled import outputs
from ..pipelines.model.identity import identity

if TYPE_CHECKING:
    from ..pipelines.model.layout import Layout


@dataclass(frozen=True)
class Demonstrations:
    """How directions are found.

    question: what the captions answer. components: principal directions that are kept. image: whether the tower's are
    found too. trials, mask: masked images for each, and the share of their patches that is masked. mode: "official" has
    the released code's slips, see `VTI`. seed: of the masks. batch_size: rows in one pass.
    """

    question: str = "Describe this image in detail."
    components: int = 1
    image: bool = False
    trials: int = 50
    mask: float = 0.99
    mode: Literal["paper", "official"] = "paper"
    seed: int = 0
    batch_size: int = 8

    def about(self, lvlm: Layout, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """What is recorded with the directions."""
        digest = hashlib.sha256(json.dumps([list(pair) for pair in pairs], ensure_ascii=False).encode()).hexdigest()
        settings = {name: value for name, value in vars(self).items() if name != "batch_size"}
        return {"model": identity(lvlm), "pairs": len(pairs), "pairs_sha256": digest, "settings": settings}


def principal(
    differences: Float[Tensor, "demo feature"], components: int
) -> tuple[Float[Tensor, " feature"], Float[Tensor, "component feature"]]:
    """Mean, and the first right singular vectors of what is left without it, each with the sign that makes its largest
    score positive. Of n differences there are at most n − 1."""
    mean = differences.mean(0)
    centred = differences - mean
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    some = min(components, int((values > values[:1] * 1e-6).sum())) if len(values) else 0
    scores = left[:, :some]
    sign = scores.gather(0, scores.abs().argmax(0, keepdim=True)).sign()[0]
    return mean, right[:some] * sign[:, None]


def direction(
    differences: Float[Tensor, "demo layer hidden"], components: int = 1
) -> Float[Tensor, "layer hidden"]:
    """Mean of the differences and their principal directions over all layers together, added up.

    >>> direction(torch.tensor([[[0.0, 0]], [[0, 1]], [[0, -5]]])).round(decimals=3).abs().tolist()
    [[0.0, 2.3329999446868896]]
    """
    mean, several = principal(differences.flatten(1), components)
    return (mean + several.sum(0)).unflatten(0, differences.shape[1:])


def text_directions(
    lvlm: Layout, pairs: Sequence[tuple[str, str]], images: Sequence[Any], how: Demonstrations
) -> dict[str, Tensor]:
    """Mean and components of every block's output at the captions' last token, (layer, hidden) each."""
    if len(pairs) != len(images) or len(pairs) < 2:
        raise ValueError(f"vti is fitted on a pair of captions for each image, two or more: {len(pairs)} pairs for "
                         f"{len(images)} images.")  # fmt: skip
    official = how.mode == "official"
    states = [
        torch.cat([*text_states(lvlm, images, how.question, texts, how.batch_size, "last", official, embeddings=True)])
        for texts in zip(*pairs, strict=True)
    ]
    differences = states[0] - states[1]
    mean, several = principal(differences.flatten(1), how.components)
    shaped = lambda value: value.unflatten(-1, differences.shape[1:])[..., 1:, :].float().contiguous()
    return {"text": shaped(mean), "text_components": shaped(several)}


def grouped(
    differences: Float[Tensor, "demo layer token hidden"], components: int, mode: Literal["paper", "official"]
) -> tuple[Float[Tensor, "layer token hidden"], Float[Tensor, "component layer token hidden"]]:
    """Mean and components, one set for each token over all layers; "official" takes as a token what lies together in
    memory, layers + 1 neighbours of one layer."""
    demos, layers, tokens, hidden = differences.shape
    own = differences.transpose(1, 2).reshape(demos, tokens, -1)
    groups = differences.reshape(demos, tokens, -1) if mode == "official" else own
    found = [principal(groups[:, token], components) for token in range(tokens)]
    most = max(len(several) for _, several in found)
    filled = [torch.cat([one, one.new_zeros(most - len(one), one.shape[1])]) for _, one in found]
    several = torch.stack(filled, 1)  # component token layer·hidden
    if mode == "official":
        return differences.mean(0), several.reshape(most, layers, tokens, hidden)
    return differences.mean(0), several.view(most, tokens, layers, hidden).transpose(1, 2).contiguous()


def image_directions(lvlm: Layout, images: Sequence[Any], how: Demonstrations) -> dict[str, Tensor]:
    """Mean and components of every tower layer's output at every token, (layer, token, hidden) each."""
    draw = torch.Generator().manual_seed(how.seed)
    differences = []
    for image in images:
        pixels = prepare(lvlm, [image], [how.question])["pixel_values"]
        if pixels.dim() != 4 or len(pixels) != 1:
            raise ValueError(
                f"vti fits the vision tower on whole images of one size, (1, colour, height, width); {lvlm.name} has "
                f"pixel_values of {tuple(pixels.shape)}: leave the image part out."
            )
        total: Any = 0
        for start in range(0, how.trials, how.batch_size):
            count = min(how.batch_size, how.trials - start)
            total = total + tower_states(lvlm, masked(pixels, count, how.mask, _patch(lvlm), draw)).sum(0)
        differences.append(total / how.trials - tower_states(lvlm, pixels)[0])
    mean, several = grouped(torch.stack(differences), how.components, how.mode)
    return {"image": mean[1:].contiguous(), "image_components": several[:, 1:].contiguous()}


def masked(
    pixels: Float[Tensor, "1 colour height width"], count: int, share: float, patch: int, draw: torch.Generator
) -> Float[Tensor, "trial colour height width"]:
    """`count` copies, in each of which another random ⌊share·patches⌋ patches have the image's mean colour."""
    rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
    hidden = torch.zeros(count, rows * columns, dtype=torch.bool)
    for trial in range(count):
        hidden[trial, torch.randperm(rows * columns, generator=draw)[: int(share * rows * columns)]] = True
    grid = hidden.view(count, 1, rows, columns).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    covered = torch.zeros(count, 1, *pixels.shape[2:], dtype=torch.bool)
    covered[:, :, : grid.shape[2], : grid.shape[3]] = grid
    return torch.where(covered.to(pixels.device), pixels.mean((2, 3), keepdim=True), pixels)


@torch.no_grad()
def tower_states(
    lvlm: Layout, pixels: Float[Tensor, "image colour height width"]
) -> Float[Tensor, "image entry token hidden"]:
    """What enters the tower's first layer, and every layer's output, in float32 or more."""
    layers = lvlm.vision_layers
    with claimed(lvlm.model), _entering(layers[0]) as first, outputs(lvlm.model, dict(enumerate(layers))) as found:
        lvlm.model.get_image_features(pixel_values=pixels.to(lvlm.device, lvlm.dtype))
    bare = lambda value: value if isinstance(value, Tensor) else value[0]
    states = torch.stack([first[0], *(bare(found[layer]) for layer in sorted(found))], 1)
    return states.to(torch.promote_types(states.dtype, torch.float32))


@contextmanager
def _entering(layer: Any) -> Iterator[list[Tensor]]:
    """What enters a layer."""
    kept: list[Tensor] = []
    keep = lambda module, args, kwargs: kept.append(args[0] if args else kwargs["hidden_states"])
    hook = layer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield kept
    finally:
        hook.remove()


def _patch(lvlm: Layout) -> int:
    found = getattr(lvlm.model.config.vision_config, "patch_size", None)
    if not isinstance(found, int):
        raise ValueError(f"vti masks square patches; the vision tower of {lvlm.name} has patch_size={found!r}.")
    return found
