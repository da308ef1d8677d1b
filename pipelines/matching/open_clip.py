"""A matcher from any open_clip checkpoint with a plain vision transformer: GradCAM on its attention."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import linear

from ..checks import check_layers
from .base import Match, attention_gradient, fingerprint, in_batches, squashed, stretch

LAYER = -1
BATCH = 32


class UnsupportedMatcher(ValueError):
    """A matcher whose attention cannot be read; the message names what was expected and what was found."""


class OpenClipMatcher:
    r"""GradCAM of the cosine of an open_clip model's image and text.

    cor[k] = (1/H) · Σ_h Σ_q C_h[q, k] · max(∂s/∂C_h[q, k], 0),   k over patches, q over all positions

    C: attention probabilities of one layer of the vision transformer; s: cosine of image and text embedding. With a
    class token and the last layer only the class token's row has a gradient.

    Args:
        model, tokenizer: as open_clip makes them. name: for messages and the cache; must change with the weights.
        layer: of the vision transformer, negative from the end.

    Raises:
        UnsupportedMatcher: no plain vision transformer of open_clip's own (ResNets, timm towers, attention pooling).

    AGLA's paper uses BLIP's cross-attention; this is the same rule on a model that has none.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, layer: int = LAYER) -> None:
        blocks: Any = getattr(getattr(getattr(model, "visual", None), "transformer", None), "resblocks", None)
        attention = getattr(blocks[0], "attn", None) if blocks else None
        if not isinstance(attention, nn.MultiheadAttention) or getattr(model.visual, "attn_pool", None) is not None:
            raise UnsupportedMatcher(
                f"{name} has no vision transformer whose attention can be read: looked for "
                "visual.transformer.resblocks with torch's MultiheadAttention and a class token or mean as its pool; "
                f"found {type(getattr(model, 'visual', model)).__name__}. Take a ViT of open_clip's own, such as "
                "ViT-B-32 or ViT-L-14, or a BLIP matcher."
            )
        (self.layer,) = check_layers([layer + len(blocks) if layer < 0 else layer], len(blocks), "the matcher")
        self.model, self.tokenizer, self.name = model.eval().requires_grad_(False), tokenizer, name
        self.size, grid = tuple(model.visual.image_size), model.visual.grid_size
        self.grid = (int(grid[0]), int(grid[1]))

    @classmethod
    def load(cls, folder: Path, name: str | None = None, device: Any = "cpu", layer: int = LAYER) -> OpenClipMatcher:
        """From a folder with open_clip_config.json, weights in safetensors, and the tokenizer if it has its own.

        Raises:
            FileNotFoundError: a file is missing; the message names it.
        """
        import open_clip

        weights = _weights(folder)
        place = f"local-dir:{folder}"
        with _quiet():
            model, _, _ = open_clip.create_model_and_transforms(place, device=device)
            tokenizer = open_clip.get_tokenizer(place)
        return cls(model, tokenizer, f"{name or folder.name}@{fingerprint(weights)}", layer)

    @property
    def id(self) -> str:
        return f"open_clip:{self.name} layer {self.layer}"

    def match(self, images: Sequence[UInt8[Tensor, "3 _ _"]], prompts: Sequence[str]) -> list[Match]:
        """A match for each image and its prompt."""
        return in_batches(self._batch, BATCH, images, prompts)

    def image_embeddings(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> Float[Tensor, "image width"]:
        """Of unit length."""
        encode = lambda some: self.model.encode_image(self._pixels(some), normalize=True)
        with torch.no_grad():
            return torch.stack(in_batches(encode, BATCH, images))

    def text_embeddings(self, prompts: Sequence[str]) -> Float[Tensor, "prompt width"]:
        """Of unit length."""
        with torch.no_grad():
            return torch.stack(in_batches(self._texts, BATCH, prompts))

    def _pixels(self, images: Sequence[Tensor]) -> Tensor:
        visual = self.model.visual
        return squashed(images, self.size, visual.image_mean, visual.image_std, self.model.logit_scale.device)

    def _texts(self, prompts: Sequence[str]) -> Tensor:
        return self.model.encode_text(self.tokenizer(prompts).to(self.model.logit_scale.device), normalize=True)

    def _batch(self, images: Sequence[Tensor], prompts: Sequence[str]) -> list[Match]:
        pixels = self._pixels(images)
        seen: dict[str, Tensor] = {}

        def keep(module: Any, args: Any, output: Any) -> Any:
            """The attention's output as a leaf, so that the gradient stops here."""
            seen["input"], seen["output"] = args[0], output[0].detach().requires_grad_()
            return seen["output"], *output[1:]

        attention = self.model.visual.transformer.resblocks[self.layer].attn
        with torch.no_grad():
            texts = self._texts(prompts)
        hook = attention.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                cosine = (self.model.encode_image(pixels, normalize=True) * texts).sum(-1)
                (gradient,) = torch.autograd.grad(cosine.sum(), seen["output"])
        finally:
            hook.remove()
        maps = [stretch(one).reshape(self.grid).cpu() for one in relevance(attention, seen["input"], gradient)]
        return [Match(one, float(s)) for one, s in zip(maps, cosine.detach(), strict=True)]


@torch.no_grad()
def relevance(
    attention: nn.MultiheadAttention, states: Float[Tensor, "batch position width"],
    gradient: Float[Tensor, "batch position width"],
) -> Float[Tensor, "batch patch"]:  # fmt: skip
    """C·max(G, 0) of self-attention: mean over heads, sum over queries, the class token's column left out.

    states: the attention's input. gradient: of the score, with respect to the attention's output.
    """
    heads = attention.num_heads
    split = lambda tensor: tensor.unflatten(-1, (heads, -1)).transpose(1, 2)  # batch position width -> batch head …
    packed = linear(states, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (split(part) for part in packed.chunk(3, dim=-1))
    probabilities = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    slope = attention_gradient(split(gradient @ attention.out_proj.weight), value)
    return (probabilities * slope.clamp(min=0)).mean(1).sum(1)[:, 1:]


def _weights(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; an open_clip matcher is a folder with open_clip_config.json")
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    if not (folder / "open_clip_config.json").is_file():
        raise FileNotFoundError(f"no open_clip_config.json in {folder}; found {found}")
    weights = sorted(folder.glob("open_clip*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"no weights in safetensors in {folder} (pickles are not read); found {found}")
    return weights[0]


@contextmanager
def _quiet() -> Any:
    """open_clip logs every step of loading through the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
