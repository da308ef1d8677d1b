"""An independent forward pass of LLaVA with a Llama text model, written out from the weights.

One row, no cache, no padding, no attention mask but the causal one, and nothing of veridical: what the package says
about a model is held against this. Only the vision tower and the projector are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Tap = Callable[[int, Tensor], Tensor]
"""A callback: layer and tensor in, the tensor that takes its place out."""


@dataclass
class Pass:
    """What one forward pass computed, each tensor as the model went on with it (after any callback)."""

    logits: Tensor = None  # position vocab
    inputs: list[Tensor] = field(default_factory=list)  # per layer: position hidden, residual stream entering it
    probabilities: list[Tensor] = field(default_factory=list)  # per layer: head query key
    heads: list[Tensor] = field(default_factory=list)  # per layer: query head head_dim, before the output projection
    mlps: list[Tensor] = field(default_factory=list)  # per layer: position hidden, before the residual addition
    blocks: list[Tensor] = field(default_factory=list)  # per layer: position hidden, before any final norm


class Reference:
    """Full uncached passes of one row.

    Args:
        model: a LlavaForConditionalGeneration with a Llama text model, multi-head or grouped-query attention.
            Text weights are copied when the object is made; later changes of the model are not seen.
        dtype: of the text model's arithmetic. float64 makes this side's rounding negligible.
    """

    def __init__(self, model, dtype: torch.dtype = torch.float64):
        text = model.config.text_config
        if text.hidden_act != "silu" or text.rope_parameters["rope_type"] != "default":
            raise ValueError(f"Llama with SwiGLU and plain RoPE only, not {text.hidden_act}, {text.rope_parameters}.")
        self.model, self.dtype = model, dtype
        self.layers, self.n_heads = text.num_hidden_layers, text.num_attention_heads
        self.n_kv, self.eps = text.num_key_value_heads, text.rms_norm_eps
        self.head_dim = getattr(text, "head_dim", None) or text.hidden_size // self.n_heads
        self.theta = text.rope_parameters["rope_theta"]
        self.image_token = model.config.image_token_id
        state = model.model.language_model.state_dict()
        self.weights = {name: tensor.detach().to(dtype, copy=True) for name, tensor in state.items()}
        self.head = model.lm_head.weight.detach().to(dtype, copy=True)

    # ------------------------------------------------------------------ pieces

    def linear(self, name: str, x: Tensor) -> Tensor:
        bias = self.weights.get(f"{name}.bias")
        y = x @ self.weights[f"{name}.weight"].T
        return y if bias is None else y + bias

    def rms_norm(self, name: str, x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weights[f"{name}.weight"]

    def rotate(self, x: Tensor) -> Tensor:
        """RoPE. x: (position, head, head_dim); pairs are (i, i + head_dim/2); positions count from 0."""
        half = self.head_dim // 2
        frequency = self.theta ** (-torch.arange(half, dtype=self.dtype) * 2 / self.head_dim)
        angle = torch.arange(x.shape[0], dtype=self.dtype)[:, None, None] * frequency  # position 1 half
        first, second = x[..., :half], x[..., half:]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def final_norm(self, hidden: Tensor) -> Tensor:
        return self.rms_norm("norm", hidden)

    def lm_head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.head.T

    # ------------------------------------------------------------------ the input

    def image_mask(self, ids: Tensor) -> Tensor:
        """True where the prompt has an image placeholder. ids: (position,)"""
        return ids == self.image_token

    @torch.no_grad()
    def image_features(self, pixels: Tensor) -> Tensor:
        """(image, hidden) features of one image, from the model's own vision tower and projector."""
        pixels = pixels if pixels.dim() == 4 else pixels[None]
        features = self.model.get_image_features(pixel_values=pixels).pooler_output
        return torch.cat(list(features), dim=0).to(self.dtype)

    def embed(self, ids: Tensor, pixels: Tensor | None, new: Sequence[int] = ()) -> Tensor:
        """(position, hidden) embeddings of a prompt and generated tokens; image features at the placeholders.

        Generated tokens are always words, even one that happens to be the placeholder's id.
        """
        everything = torch.cat([ids, torch.tensor(list(new), dtype=ids.dtype)])
        hidden = self.weights["embed_tokens.weight"][everything].clone()
        if pixels is not None:
            positions = self.image_mask(ids).nonzero().flatten()
            features = self.image_features(pixels)
            if len(positions) != len(features):
                raise ValueError(f"{len(positions)} image placeholders, {len(features)} image features.")
            for position, feature in zip(positions.tolist(), features, strict=True):
                hidden[position] = feature
        return hidden

    # ------------------------------------------------------------------ the pass

    def attention_probabilities(self, query: Tensor, key: Tensor) -> Tensor:
        """softmax(QK'/sqrt(d)) under the causal mask. query, key: (position, head, head_dim) -> head query key"""
        scores = torch.einsum("qhd,khd->hqk", query, key) / self.head_dim**0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, float("-inf")).softmax(dim=-1)

    @torch.no_grad()
    def __call__(
        self,
        ids: Tensor,
        pixels: Tensor | None = None,
        new: Sequence[int] = (),
        *,
        on_input: Tap | None = None,
        on_probabilities: Tap | None = None,
        on_heads: Tap | None = None,
        on_mlp: Tap | None = None,
        on_block: Tap | None = None,
    ) -> Pass:
        """One full pass over a prompt and what was generated after it.

        Args:
            ids: (position,) prompt, image placeholders included; none of them when there is no image.
            pixels: the image, (channel, height, width) or with a leading 1; None without one.
            new: generated token ids so far.
            on_input: residual stream entering a layer, (position, hidden).
            on_probabilities: attention after softmax, (head, query, key).
            on_heads: head outputs before the output projection, (query, head, head_dim).
            on_mlp: MLP output before it joins the residual stream, (position, hidden).
            on_block: residual stream leaving a layer, (position, hidden).
        """
        done = Pass()

        def tap(callback: Tap | None, kept: list[Tensor], layer: int, tensor: Tensor) -> Tensor:
            tensor = tensor if callback is None else callback(layer, tensor)
            kept.append(tensor)
            return tensor

        hidden = self.embed(ids, pixels, new)
        length = len(hidden)
        for layer in range(self.layers):
            at = f"layers.{layer}"
            hidden = tap(on_input, done.inputs, layer, hidden)

            x = self.rms_norm(f"{at}.input_layernorm", hidden)
            query = self.rotate(self.linear(f"{at}.self_attn.q_proj", x).view(length, self.n_heads, self.head_dim))
            key = self.rotate(self.linear(f"{at}.self_attn.k_proj", x).view(length, self.n_kv, self.head_dim))
            value = self.linear(f"{at}.self_attn.v_proj", x).view(length, self.n_kv, self.head_dim)
            served_by = [head * self.n_kv // self.n_heads for head in range(self.n_heads)]  # query head -> key head
            key, value = key[:, served_by], value[:, served_by]
            probabilities = self.attention_probabilities(query, key)
            probabilities = tap(on_probabilities, done.probabilities, layer, probabilities)
            heads = torch.einsum("hqk,khd->qhd", probabilities, value)
            heads = tap(on_heads, done.heads, layer, heads)
            hidden = hidden + self.linear(f"{at}.self_attn.o_proj", heads.reshape(length, -1))

            x = self.rms_norm(f"{at}.post_attention_layernorm", hidden)
            gate, up = self.linear(f"{at}.mlp.gate_proj", x), self.linear(f"{at}.mlp.up_proj", x)
            mlp = self.linear(f"{at}.mlp.down_proj", gate * torch.sigmoid(gate) * up)
            mlp = tap(on_mlp, done.mlps, layer, mlp)
            hidden = tap(on_block, done.blocks, layer, hidden + mlp)

        done.logits = self.lm_head(self.final_norm(hidden))
        return done
