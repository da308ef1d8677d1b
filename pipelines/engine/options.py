"""Options of transformers' generate as a run takes them: resolved once, refused in one place, counted on main rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from ..model import families
from ..model.layout import Layout

# Arguments of generate that are no settings of its configuration.
ARGUMENTS = (
    "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer", "assistant_model", "tokenizer",
    "assistant_tokenizer", "synced_gpus", "custom_generate", "generation_config", "negative_prompt_ids",
    "negative_prompt_attention_mask",
)  # fmt: skip
OTHER_LOOPS = {  # settings that start a decoding loop that is neither greedy, sampling nor beam search
    "num_beam_groups": lambda value: value > 1,
    "constraints": bool,
    "force_words_ids": bool,
    "dola_layers": lambda value: True,
    "prompt_lookup_num_tokens": lambda value: True,
    "use_mtp": bool,
    "assistant_early_exit": lambda value: True,
}
INSTEAD = {"dola_layers": ' For DoLa use decoders=["dola"], which reads the layers in batches and branches too.'}


def resolved(lvlm: Layout, generation: Mapping[str, Any]) -> Any:
    """The configuration that generate makes of these arguments: the call's, then the given one's, then the model's."""
    settings = {name: value for name, value in generation.items() if name not in ARGUMENTS}
    given = generation.get("generation_config")
    return families.generator(lvlm.model)._prepare_generation_config(given, **settings)[0]


def check(config: Any, generation: Mapping[str, Any], methods: bool) -> None:
    """Refuse what would silently give another text. methods: whether any decoder or detector is named.

    Raises:
        ValueError: beams with sampling, several texts per prompt, a decoding loop of another kind, or a second model
            or prompt that is asked inside a step.
    """
    beams = config.num_beams or 1
    if beams > 1 and config.do_sample:
        raise ValueError("beam search with do_sample=True would draw each branch apart; choose one of the two")
    if (config.num_return_sequences or 1) != 1:
        raise ValueError(
            f"num_return_sequences={config.num_return_sequences} is not supported: one text per prompt is returned. "
            "Repeat the inputs, and for sampling give each row a seed of its own"
        )
    found = {name: getattr(config, name, None) for name in OTHER_LOOPS}
    for name, value in found.items():
        if value is not None and OTHER_LOOPS[name](value):
            raise ValueError(
                f"{name}={value!r} asks for a decoding loop of its own; methods run in greedy decoding, sampling and "
                f"beam search: leave {name} out.{INSTEAD.get(name, '')}"
            )
    contrastive = (config.penalty_alpha or 0) > 0 and (config.top_k or 0) > 1
    if contrastive and beams == 1 and not config.do_sample:
        raise ValueError(
            f"penalty_alpha={config.penalty_alpha!r} asks for contrastive search, a decoding loop of its own; methods "
            "run in greedy decoding, sampling and beam search: leave penalty_alpha out"
        )
    if generation.get("assistant_model") is not None:
        raise ValueError("assistant_model proposes tokens that no method has seen; leave it out")
    if generation.get("custom_generate") is not None:
        raise ValueError("custom_generate is the place where methods go; leave it out, or use veridical.mitigate")
    if beams > 1 and generation.get("streamer") is not None:
        raise ValueError("a streamer with num_beams > 1: beams settle their text at its end; use num_beams=1")
    if methods and (config.guidance_scale or 1) != 1:
        raise ValueError(
            f"guidance_scale={config.guidance_scale!r} asks the model once more inside every step, where methods are "
            "in place; leave it out, or contrast with a prompt by decoders such as icd and m3id"
        )
    caches = [name for name in ("past_key_values", "cache") if generation.get(name) is not None]
    if methods and caches:
        raise ValueError(f"{caches[0]} holds rows that no method has changed; give the whole prompt as inputs instead")


class MainPrompt:
    """The caller's processors, criteria and lengths, which concern the main prompt whatever the branches' prompts are.

    Args:
        generation: arguments of generate; those that are dealt with here are taken out of it.
        config: what they resolve to. inputs: the main prompts. shift: how much longer the rows of a run are.
        prepared: processors and criteria of the main rows, where transformers has made them already.
    """

    def __init__(
        self, lvlm: Layout, generation: dict[str, Any], config: Any, inputs: Mapping[str, Tensor], shift: int,
        prepared: tuple[Any, Any] | None = None,
    ) -> None:  # fmt: skip
        self.inputs, self.shift, self.prepared = inputs, shift, prepared
        take = lambda name: generation.pop(name, None)
        self.processors = LogitsProcessorList(take("logits_processor") or ())
        self.criteria = StoppingCriteriaList(take("stopping_criteria") or ())
        self.allowed, self.streamer = take("prefix_allowed_tokens_fn"), take("streamer")
        self.negative = {name: take(name) for name in ("negative_prompt_ids", "negative_prompt_attention_mask")}
        self.tokenizer = take("tokenizer") or getattr(lvlm.processor, "tokenizer", None)
        self.stop_strings = config.stop_strings
        if self.stop_strings is not None:  # transformers hands no tokenizer on beside a decoding function
            generation["stop_strings"] = None
        if shift and config.max_new_tokens is None:
            self._count_from_main(lvlm, generation)

    def _count_from_main(self, lvlm: Layout, generation: dict[str, Any]) -> None:
        own = families.generator(lvlm.model).generation_config
        given = [generation.get("max_length"), getattr(generation.get("generation_config"), "max_length", None)]
        longest = next((value for value in (*given, own.max_length) if value is not None), None)
        if longest is None:
            return
        prompt = self.inputs["input_ids"].shape[1]
        if longest <= prompt:
            raise ValueError(f"max_length={longest} leaves no new token behind {prompt} prompt tokens: raise it")
        generation.pop("max_length", None)
        if generation.get("generation_config") is None:
            generation["max_new_tokens"] = longest - prompt
        else:  # transformers warns of arguments beside a configuration
            config = copy.deepcopy(generation["generation_config"])
            config.max_new_tokens, config.max_length = longest - prompt, None
            generation["generation_config"] = config

    def lists(self, model: Any, config: Any, mask: Tensor | None, beams: int) -> tuple[Any, Any]:
        """Processors and criteria as generate makes them for the main prompts alone. mask: (row, position) of a run."""
        if self.prepared is not None:
            return self.prepared
        ids = self.inputs["input_ids"]
        settings = copy.copy(config)
        settings.stop_strings = self.stop_strings
        settings.max_length = config.max_length - self.shift
        if config.min_new_tokens is not None:
            settings.min_length = config.min_length - self.shift
        if mask is not None:
            mask = mask[: len(ids) * beams, self.shift :]
        processors = model._get_logits_processor(
            generation_config=settings, input_ids_seq_length=ids.shape[1], encoder_input_ids=ids,
            prefix_allowed_tokens_fn=self.allowed, logits_processor=self.processors, device=ids.device,
            model_kwargs={"attention_mask": mask}, **self.negative,
        )  # fmt: skip
        criteria = model._get_stopping_criteria(
            generation_config=settings, stopping_criteria=self.criteria, tokenizer=self.tokenizer
        )
        return processors, criteria
