"""The matcher of AGLA's paper: BLIP's image-text matching, GradCAM on its text encoder's cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from ..checks import check_layers
from .base import Match, attention_gradient, in_batches, squashed, stretch

LAYER = 6
WORDS = 35
BATCH = 8
_ENC, _VOCABULARY = 30523, 30524  # BLIP's [ENC], which its Hub tokenizers do not know by name


class BlipMatcher:
    r"""GradCAM of BLIP's matching score, and the cosine of its image and text projections.

    cor[k] = Σ_i (1/H) · Σ_h C_h[i, k] · max(∂score/∂C_h[i, k], 0),   i over words, k over patches

    C: cross-attention of one layer of the text encoder; score: the matching head's logit for "match". The first
    token ([ENC]) and the last ([SEP]) are no words. similarity: cosine of the class tokens' projections (ITC head).

    Args:
        model: transformers' `BlipForImageTextRetrieval`. processor: its processor.
        name: for messages and the cache; must change with the weights.
        layer: of the text encoder, from 0. Code: 6 of 12.

    Raises:
        ValueError: no such layer.

    Prompts are cut at 35 tokens; the released code cuts the forward pass there but not the mask of its words, and
    fails on longer ones. The text starts with [ENC] for matching, as in LAVIS; transformers' forward leaves [CLS].
    One pass through the vision encoder serves both heads.
    """

    def __init__(self, model: Any, processor: Any, name: str, layer: int = LAYER) -> None:
        blocks = model.text_encoder.encoder.layer
        (self.layer,) = check_layers([layer], len(blocks), "BLIP's matcher")
        self.model, self.processor, self.name = model.eval().requires_grad_(False), processor, name
        side, patch = model.config.vision_config.image_size, model.config.vision_config.patch_size
        self.size, self.grid = (side, side), (side // patch, side // patch)

    @property
    def id(self) -> str:
        return f"blip:{self.name} layer {self.layer}"

    def match(self, images: Sequence[UInt8[Tensor, "3 _ _"]], prompts: Sequence[str]) -> list[Match]:
        """A match for each image and its prompt."""
        return in_batches(self._batch, BATCH, images, prompts)

    def image_embeddings(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> Float[Tensor, "image width"]:
        """Of unit length: the class tokens' projections."""
        encode = lambda some: self._seen(some)[1]
        with torch.no_grad():
            return torch.stack(in_batches(encode, BATCH, images))

    def text_embeddings(self, prompts: Sequence[str]) -> Float[Tensor, "prompt width"]:
        """Of unit length: the class tokens' projections."""
        encode = lambda some: self._read(self._tokens(some))
        with torch.no_grad():
            return torch.stack(in_batches(encode, BATCH, prompts))

    def _tokens(self, prompts: Sequence[str]) -> Any:
        return self.processor.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=WORDS, return_tensors="pt", padding_side="right"
        ).to(self.model.itm_head.weight.device)

    def _read(self, text: Any) -> Tensor:
        words = self.model.text_encoder(input_ids=text.input_ids, attention_mask=text.attention_mask)
        return normalize(self.model.text_proj(words.last_hidden_state[:, 0]), dim=-1)

    def _seen(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The vision encoder's states, and the image's embedding."""
        model, normal = self.model, self.processor.image_processor
        pixels = squashed(images, self.size, normal.image_mean, normal.image_std, model.itm_head.weight.device)
        states = model.vision_model(pixel_values=pixels.to(model.dtype)).last_hidden_state
        return states, normalize(model.vision_proj(states[:, 0]), dim=-1)

    def _batch(self, images: Sequence[Tensor], prompts: Sequence[str]) -> list[Match]:
        text = self._tokens(prompts)
        mask = text.attention_mask
        with torch.no_grad():
            seen, embeddings = self._seen(images)
            cosine = (embeddings * self._read(text)).sum(-1)
        probabilities, slope = self._cross_attention(seen, text.input_ids, mask)
        out = []
        for row, count in enumerate(mask.sum(1).tolist()):
            mine = (row, slice(None), slice(count), slice(1, None))  # without padding, without the class column
            out.append(Match(relevance(probabilities[mine], slope[mine]).reshape(self.grid).cpu(), float(cosine[row])))
        return out

    @torch.enable_grad()
    def _cross_attention(self, seen: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """C and ∂score/∂C, each (image, head, token, 1 + patch)."""
        model = self.model
        part = model.text_encoder.encoder.layer[self.layer].crossattention.self
        ids = ids.clone()
        if model.config.text_config.vocab_size == _VOCABULARY:
            ids[:, 0] = _ENC
        kept: dict[str, Tensor] = {}

        def keep_output(module: Any, args: Any, output: Any) -> Any:
            """The heads' output as a leaf, so that the gradient stops here; and the probabilities beside it."""
            kept["output"], kept["attention"] = output[0].detach().requires_grad_(), output[1].detach()
            return kept["output"], *output[1:]

        keep_values = lambda module, args, output: kept.__setitem__("values", output.detach())
        hooks = [part.register_forward_hook(keep_output), part.value.register_forward_hook(keep_values)]
        try:
            joint = model.text_encoder(
                input_ids=ids, attention_mask=mask, encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
            ).last_hidden_state  # fmt: skip
            score = model.itm_head(joint[:, 0])[:, 1]
            (gradient,) = torch.autograd.grad(score.sum(), kept["output"])
        finally:
            for hook in hooks:
                hook.remove()
        heads = part.num_attention_heads
        split = lambda tensor: tensor.unflatten(-1, (heads, -1)).transpose(1, 2)
        return kept["attention"], attention_gradient(split(gradient), split(kept["values"]))


def relevance(
    attention: Float[Tensor, "head token patch"], gradient: Float[Tensor, "head token patch"]
) -> Float[Tensor, " patch"]:
    """GradCAM of a matcher's cross-attention: mean over heads and words of C·max(G, 0), from 0 to 1.

    attention, gradient: of the text encoder, class column dropped. The first and the last token are no words; a
    prompt without words is evidence for no patch.
    """
    words = (attention * gradient.clamp(min=0)).mean(0)[1:-1]
    return stretch(words.mean(0)) if len(words) else attention.new_zeros(attention.shape[-1])
