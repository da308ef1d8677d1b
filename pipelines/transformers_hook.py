"""`mitigate`: the methods inside anyone's transformers code, by the documented `custom_generate` argument."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import compatibility
from .chain import decoders_alone, make_chain
from .engine import options
from .engine.run import run
from .model.layout import Layout


def mitigate(decoders: Any, seed: int | Sequence[int] | None = None) -> Callable:
    """The methods for anyone's transformers code: `model.generate(**inputs, custom_generate=mitigate(["vista"]))`.

    The call's own settings, processors and stopping criteria stay in force, as transformers hands them over: processors
    act on the mitigated logits, in their order, and see the caller's rows alone. A full output
    (`return_dict_in_generate`) has the caller's rows alone too.

    Args:
        decoders: names, "name:field=value" or instances. seed: as in `veridical.generate`.

    Raises:
        ValueError: as `veridical.generate`; and prompts that are embedded already.
    """
    decoders = list(decoders) if isinstance(decoders, Iterable) and not isinstance(decoders, str) else decoders
    methods = decoders_alone(decoders, "veridical.mitigate")
    compatibility.check(methods, stacklevel=3)
    wrapped: list[Layout] = []  # the model of the last call: its layout is checked once

    def custom_generate(
        model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
        pixel_values: Any = None, pixel_values_videos: Any = None, pixel_attention_mask: Any = None,
        image_sizes: Any = None, image_grid_thw: Any = None, video_grid_thw: Any = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        # transformers hands over what is named here as the caller gave it: not yet encoded, not repeated for beams
        media = {
            "pixel_values": pixel_values, "pixel_values_videos": pixel_values_videos, "image_sizes": image_sizes,
            "pixel_attention_mask": pixel_attention_mask, "image_grid_thw": image_grid_thw,
            "video_grid_thw": video_grid_thw,
        }  # fmt: skip
        if kwargs.get("inputs_embeds") is not None and pixel_values is None:
            raise ValueError(
                f"mitigate was handed {type(model).__name__} with prompts that are embedded already, images and all: "
                "models such as InstructBLIP pass them on to their language model, which knows neither image positions "
                "nor pixels. Use veridical.generate(veridical.LVLM(model, processor), inputs, decoders=[…]) instead."
            )
        options.check(generation_config, {}, methods=bool(methods))
        last = wrapped[0] if wrapped else None  # another thread may call this for another model
        layout = last if last is not None and last.model is model else Layout(model)
        wrapped[:] = [layout]
        beams = generation_config.num_beams or 1
        config = copy.deepcopy(generation_config)
        config.max_new_tokens, config.max_length = config.max_length - input_ids.shape[1], None
        config.min_new_tokens = config.min_length = None  # their processors are among those that are handed over
        inputs = {**dict(_model_inputs(kwargs, beams)), "input_ids": input_ids[::beams]}
        inputs |= {name: value for name, value in media.items() if value is not None}
        # a mask of ones alone is not handed over, so that no id may count as padding without one
        inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
        if kwargs.get("position_ids") is not None:
            inputs["position_ids"] = kwargs["position_ids"][..., ::beams, :]
        output, fold, prompt = run(
            layout, inputs, make_chain(decoders, layout.name), seed=seed, generation_config=config,
            prepared=(logits_processor, stopping_criteria),
        )  # fmt: skip
        return _main_rows(output, len(fold.arranged.names), prompt, input_ids)

    return custom_generate


# -- helpers -------------------------------------------------------------------------------------------------------
_RUN_KEYS = {"past_key_values", "cache", "position_ids", "cache_position", "use_cache", "logits_to_keep", "streamer",
             "synced_gpus", "assistant_model", "inputs_embeds", "rope_deltas", "output_attentions",
             "output_hidden_states", "mm_encoder_outputs"}  # fmt: skip


def _model_inputs(kwargs: Mapping[str, Any], beams: int) -> Iterator[tuple[str, Tensor]]:
    for name, value in kwargs.items():
        if isinstance(value, Tensor) and name not in _RUN_KEYS:
            yield name, value[::beams]


def _main_rows(output: Any, blocks: int, prompt: int, input_ids: Tensor) -> Any:
    """The main block's rows behind the prompt that the caller gave, in whatever form the caller asked for.

    A cache whose layers cannot be cut to these rows and positions is left out.
    """
    shift = prompt - input_ids.shape[1]
    cut = lambda rows: rows[: rows.shape[0] // blocks]
    if isinstance(output, Tensor):
        main = cut(output)
        return torch.cat([input_ids[:: input_ids.shape[0] // main.shape[0]], main[:, prompt:]], 1)
    output.sequences = _main_rows(output.sequences, blocks, prompt, input_ids)
    for name in ("scores", "logits"):
        if getattr(output, name, None) is not None:
            setattr(output, name, tuple(cut(rows) for rows in getattr(output, name)))
    for name in ("sequences_scores", "beam_indices"):
        if getattr(output, name, None) is not None:
            setattr(output, name, cut(getattr(output, name)))
    for name, queries, keys in (("attentions", 2, True), ("hidden_states", 1, False)):
        if getattr(output, name, None) is not None:
            place = lambda one, at, of=queries, keys=keys: _positions(cut(one), of, keys, prompt + at, shift)
            steps = enumerate(getattr(output, name))
            held = tuple(tuple(one if one is None else place(one, at) for one in layers) for at, layers in steps)
            setattr(output, name, held)
    caches = [name for name in ("cache", "past_key_values") if name in list(output)]  # transformers has renamed it
    if caches and blocks > 1:
        output[caches[0]] = _cut_cache(output[caches[0]], input_ids.shape[0], shift)
    return output


def _positions(value: Tensor, queries: int, keys: bool, total: int, shift: int) -> Tensor:
    """Without the positions in front of the main prompt. total: positions so far, those included."""
    if value.shape[queries] == total:  # the prompt's pass, or one without a cache
        value = value.narrow(queries, shift, total - shift)
    if keys and value.shape[-1] >= total:  # not a window that has left them behind
        value = value[..., shift:]
    return value


def _cut_cache(cache: Any, rows: int, shift: int) -> Any:
    layers = getattr(cache, "layers", None) or ()
    if not layers or any(type(layer).__name__ not in ("DynamicLayer", "GrowingLayer") for layer in layers):
        return None
    for layer in layers:
        layer.keys, layer.values = (held[:rows, :, shift:].clone() for held in (layer.keys, layer.values))
    return cache
