"""Where things are in a vision-language model: layers, heads, norm, head, image positions; checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..engine.plan import refuse_if_busy
from ..inputs.rows import image_free
from . import families, quantization
from .compiled import outputs, uncompiled

Inputs = Mapping[str, Tensor]
TOWERS = ("vision_tower", "vision_model", "visual", "vision_encoder")


class UnsupportedModel(ValueError):
    """The model's layout is not understood; the message names what was expected and what was found."""


def where(module: Any) -> torch.device:
    """Where a module computes: where accelerate brings its weights if they are offloaded, else where they are."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        if (device := getattr(one, "execution_device", None)) is not None:
            return torch.device(device)
    return module.weight.device


@dataclass(frozen=True)
class Layout:
    """Where things are in a vision-language model of transformers. Changes nothing in it or in its processor.

    Args:
        model: a loaded `…ForConditionalGeneration` that feeds the image as positions in the sequence.
        processor: its processor; None means that inputs are tensors that are prepared already.
        name: how results call it; by default where it was loaded from.

    Raises:
        UnsupportedModel: no image tokens, no list of decoder layers, or final norm and head that do not give the
            model's own logits. Checked once, here, so that an adapter that is wrong fails before any result.
    """

    model: Any
    processor: Any = None
    name: str = ""
    revision: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", uncompiled(self.model))
        refuse_if_busy(self.model)
        if self.image_token is None:
            raise UnsupportedModel(
                f"{type(self.model).__name__} (model_type {self.model.config.model_type!r}) has no image token: looked "
                "for image_token_id and image_token_index in its configuration. Text-only models and models that feed "
                "the image through cross-attention have no image positions; load a LLaVA-like vision-language model."
            )
        if not self.name:
            object.__setattr__(self, "name", self.model.config.name_or_path or type(self.model).__name__)
        self._check_layout()

    # -- where things are -----------------------------------------------------------------------------------------
    @property
    def image_token(self) -> int | None:
        """Id of the placeholder that stands where an image position is."""
        config = self.model.config
        found = getattr(config, "image_token_id", None)
        return found if found is not None else getattr(config, "image_token_index", None)

    @cached_property
    def decoder(self) -> Any:
        """The language model without its head."""
        return self.model.get_decoder()

    @property
    def layers(self) -> Any:
        """The decoder layers, first to last."""
        return self.decoder.layers

    @cached_property
    def vision_layers(self) -> Any:
        """The layers of the vision tower, first to last.

        Raises:
            UnsupportedModel: no tower, or one whose layers have no MLP.
        """
        base = self.model.base_model
        towers = [tower for name in TOWERS if (tower := getattr(base, name, None)) is not None]
        for module in (module for tower in towers for module in tower.modules()):
            if isinstance(module, torch.nn.ModuleList) and len(module) and all(hasattr(one, "mlp") for one in module):
                return module
        found = ", ".join(type(tower).__name__ for tower in towers) or "no tower"
        raise UnsupportedModel(
            f"no layers of a vision tower are found in {type(self.model).__name__}: looked for {', '.join(TOWERS)} "
            f"with a list of layers that have .mlp; found {found}."
        )

    @property
    def text_config(self) -> Any:
        return self.model.config.get_text_config()

    @property
    def heads(self) -> int:
        """Query heads per layer."""
        return self.text_config.num_attention_heads

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return where(self.model.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @cached_property
    def soft_cap(self) -> float | None:
        """c of logits that are c·tanh(logits / c); None for a model that leaves them as they are."""
        return getattr(self.text_config, "final_logit_softcapping", None)

    @property
    def attention_implementation(self) -> str:
        return self.layers[0].self_attn.config._attn_implementation or "eager"

    @property
    def quantization(self) -> str | None:
        """How the weights are quantised: "bnb-4bit", or the method and type of another configuration."""
        return quantization.name_of(self.model)

    @property
    def generation_config(self) -> Any:
        """The settings that the model's generate starts from."""
        return families.generator(self.model).generation_config

    @property
    def pad_token(self) -> int:
        """Id that fills rows up; the end token where the model has no pad token."""
        for source in (getattr(self.processor, "tokenizer", None), self.generation_config, self.text_config):
            if source is not None and getattr(source, "pad_token_id", None) is not None:
                return source.pad_token_id
        ends = self.end_tokens
        return ends[0] if ends else 0

    @property
    def end_tokens(self) -> tuple[int, ...]:
        found = self.generation_config.eos_token_id
        if found is None:
            found = getattr(self.text_config, "eos_token_id", None)
        return () if found is None else tuple(found) if isinstance(found, list | tuple) else (found,)

    def image_mask(self, ids: Int[Tensor, "*rows position"]) -> Bool[Tensor, "*rows position"]:
        """Which positions are image positions: a mask, never a span, for tiles may be interleaved with text."""
        return torch.eq(ids, self.image_token)  # type: ignore[arg-type]

    def unembed(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        """Logits of a layer's output: final norm, head, and the soft cap where the model has one."""
        return self.head(self.final_norm(hidden))

    def final_norm(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """A layer's output after the final norm, as the head has it."""
        return self.decoder.norm(hidden.to(where(self.decoder.norm)))

    def head(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        """Logits of a state that is used as it is, without the final norm."""
        head = self.model.get_output_embeddings()
        logits = head(hidden.to(where(head)))
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)

    def image_free(self, inputs: Inputs) -> dict[str, Tensor]:
        """The same prompts without image positions and the tokens around images, left-padded, counted from 0 again.

        Which tokens stand around an image is known from the configuration (Qwen, Gemma 3) or from the tokenizer
        (InternVL, SmolVLM, Idefics3); without a processor the latter stay in.
        """
        ids = inputs["input_ids"]
        around = families.around(self.model, getattr(self.processor, "tokenizer", None))
        return image_free(inputs, self.image_mask(ids) | torch.isin(ids, ids.new_tensor(around)), self.pad_token)

    def grid(self, inputs: Inputs) -> list[list[tuple[int, int]]]:
        """Per row, (rows, columns) of its images or tiles in the order of their positions.

        Raises:
            families.NoGrid: this family's image positions are no rectangles.
        """
        return families.grid(self.model, inputs, self.image_mask(inputs["input_ids"]))

    # -- the check at load ----------------------------------------------------------------------------------------
    @torch.no_grad()
    def _check_layout(self) -> None:
        name = f"{type(self.model).__name__} (model_type {self.model.config.model_type!r})"
        crossing = getattr(self.text_config, "cross_attention_layers", None)
        if crossing:
            raise UnsupportedModel(
                f"{name} feeds the image through cross-attention in layers {', '.join(map(str, crossing))}: it has no "
                "positions in the sequence, so that nothing here that speaks of image positions would apply. Load a "
                "model that puts the image among the tokens, such as llava, qwen2_5_vl, internvl or gemma3."
            )
        try:
            layers, norm = self.layers, self.decoder.norm
            layers[0].self_attn, layers[0].mlp, norm.weight
        except AttributeError as missing:
            raise UnsupportedModel(
                f"the layout of {name} is not understood: looked for get_decoder() with .layers, .norm and in each "
                f"layer .self_attn and .mlp; found {missing}."
            ) from missing
        if getattr(self.text_config, "attn_logit_softcapping", None) and self.attention_implementation == "sdpa":
            raise UnsupportedModel(
                f"{name} caps its attention scores, which sdpa leaves out: load it with attn_implementation='eager'."
            )
        if self.device.type == "meta":
            return
        with outputs(self.model, {"last": layers[-1]}) as found:
            vocabulary = self.model.get_input_embeddings().weight.shape[0]
            ids = torch.tensor([[token for token in range(min(vocabulary, 64)) if token != self.image_token][-2:]])
            ids = ids.to(self.device)
            text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            logits = self.model(**families.with_blank_image(self.model, text), use_cache=False).logits
        last = found["last"] if isinstance(found["last"], Tensor) else found["last"][0]
        scale = logits.abs().max().item()
        allowed = 1e-4 if logits.dtype == torch.float32 else 0.05
        off = lambda: (self.unembed(last).to(logits.device, logits.dtype) - logits).abs().max().item()
        error = off()
        if not error <= allowed * max(1.0, scale) and self.soft_cap is not None:
            self.__dict__["soft_cap"] = None  # PaliGemma 2 in transformers 5.20 has the cap and does not apply it
            error = off()
        if not error <= allowed * max(1.0, scale):
            if not logits.isfinite().all():
                raise UnsupportedModel(
                    f"the logits of {name} in {str(logits.dtype).removeprefix('torch.')} are NaN or infinite: its "
                    "weights are damaged, or need a wider dtype, such as 'bf16' instead of 'fp16'."
                )
            raise UnsupportedModel(
                f"the layout of {name} is not understood: final norm and head of the last block's output differ from "
                f"the model's logits by {error:.3g} (allowed {allowed * max(1.0, scale):.3g})."
            )
