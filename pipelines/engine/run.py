"""The one engine: runs the model's own decoding loop, or one pass, with declarations in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from ..inputs.complete import complete
from ..model.layout import Layout
from ..prefill.alongside import alongside
from ..prefill.late import LateBranch
from ..prefill.memo import Memo, remembered
from ..prefill.start import Start, begin, late_branches, prefill, separately
from . import options
from .choice import Choice, EndedBeams, MainCriteria
from .declarations import Again, Declaration, Step
from .declared import declarations_of, starting_over
from .deferred_readings import DeferredReadings
from .ended_rows import leaving
from .hooks import applied
from .logits import Draw, Fold, MainRows
from .plan import claimed
from .rows import Arrangement, arrange, sequences


def declare(
    lvlm: Layout, inputs: Mapping[str, Tensor], decoders: Sequence[Any], memo: Memo
) -> list[tuple[Declaration, int]]:
    """Every declaration of every decoder in order, with the decoder's number."""
    declared = []
    for number, decoder in enumerate(decoders):
        memo.method = number
        declared += [(d, number) for d in declarations_of(decoder, lvlm, inputs)]
    return declared


@dataclass(frozen=True)
class Observers:
    """What reads along in a run and changes nothing.

    readings: declarations beside the decoders'. observe: called with every step and the main rows' logits; it has
    `restart` and `rows_leave` as `Recorder`.
    deferred: evaluates `readings` of attention in blocks of steps; without it they are evaluated at each step.
    """

    readings: Sequence[Declaration] = ()
    observe: Any = None
    deferred: DeferredReadings | None = None


@torch.no_grad()
def run(
    lvlm: Layout, inputs: Mapping[str, Tensor], decoders: Sequence[Any], observers: Observers = Observers(),
    return_logits: bool = False, seed: int | Sequence[int] | None = None, prepared: tuple[Any, Any] | None = None,
    **generation: Any,
) -> tuple[Any, Fold, int]:  # fmt: skip
    """Decode through the model's own generate. Returns its output (all row blocks), the fold, and the prompt length.

    prepared: processors and criteria of the main rows, where transformers has made them already.
    """
    inputs = complete(lvlm, inputs)
    config = options.resolved(lvlm, generation)
    returning = starting_over(decoders, generation.get("streamer"))
    if returning and config.do_sample and seed is None:  # what starts over draws the same again
        seed = int(torch.randint(2**31, (1,)))
    # a run consumes the cache that it begins with, and one that starts over would find it changed
    apart = not returning and separately(lvlm, inputs, generation, config)
    with claimed(lvlm.model), remembered(apart) as memo:  # a method may copy the model, without hooks of other threads
        declared = declare(lvlm, inputs, decoders, memo) + [(reading, -1) for reading in observers.readings]
        arranged = arrange(declared, inputs, lvlm.pad_token, late=apart)
        begun = begin(lvlm, arranged, memo, config.num_beams or 1)
    prompt = arranged.inputs["input_ids"].shape[1]
    main = options.MainPrompt(lvlm, generation, config, inputs, prompt - inputs["input_ids"].shape[1], prepared)
    whole = any(getattr(one, "keeps_rows", False) for one in decoders) or any(
        generation.get(name) is not None for name in ("cache", "past_key_values")
    )
    settings = RunSettings(len(decoders), return_logits, seed, bool(returning), not whole)
    once = _Run(lvlm, arranged, begun, main, observers, settings, late_branches(lvlm, arranged, memo, begun))
    restarts = {number: torch.zeros(arranged.batch) for number in returning}
    while True:
        try:
            output, fold = once(config.num_beams or 1, dict(generation))
        except Again as again:
            restarts[again.method] += again.samples.cpu()
            if observers.observe is not None:
                observers.observe.restart()
        else:
            fold.restarts = restarts
            return output, fold, prompt


@dataclass(frozen=True)
class RunSettings:
    """How a run decodes.

    methods: their number. logits: whether they are kept. returning: whether a method may start the run over, and has to
    know which samples have ended. leaving: whether rows whose text has ended need not be computed.
    """

    methods: int
    logits: bool
    seed: int | Sequence[int] | None
    returning: bool
    leaving: bool


@dataclass(frozen=True)
class _Run:
    """One call of the model's generate with everything in place. Nothing of a call that is broken off is left here."""

    lvlm: Layout
    arranged: Arrangement
    begun: Start
    main: options.MainPrompt
    observers: Observers
    settings: RunSettings
    late: Mapping[str, LateBranch]

    def __call__(self, beams: int, generation: dict[str, Any]) -> tuple[Any, Fold]:
        lvlm, arranged, main, seed = self.lvlm, self.arranged, self.main, self.settings.seed
        placed = [replace(p, rows=_spread(p.rows, beams)) for p in arranged.placed]
        blocks = len(arranged.names)
        where = sequences(lvlm, arranged, beams)
        where.seen = self.begun.seen
        with applied(lvlm, placed, where, Step(), self.observers.deferred) as plan:
            plan.changed |= {method: rows.to(where.image.device) for method, rows in self.begun.changed.items()}
            fold = Fold(arranged, plan, beams, self.settings.methods, self.settings.logits, self.observers.observe)
            fold.late = self.late
            for branch in self.late.values():
                branch.paused = plan.pause
                if branch.main is not None:
                    branch.main.place = lambda row: int(plan.stand_in[row])
            if main.streamer is not None:
                main.streamer.put(main.inputs["input_ids"].cpu())

            def decode(model: Any, input_ids: Tensor, generation_config: Any, **kwargs: Any) -> Any:
                processors, criteria = main.lists(model, generation_config, kwargs.get("attention_mask"), beams)
                draw: Draw | None = None
                scores: list[Tensor] | None = None
                ended: EndedBeams | None = None
                if plan.hooked:  # a cache of fixed size would have transformers compile the passes
                    generation_config.disable_compile = True
                if generation_config.do_sample and beams == 1 and (blocks > 1 or self.late or seed is not None):
                    draw = Draw(1, arranged.batch, seed)
                    scores = [] if generation_config.return_dict_in_generate else None
                if self.settings.returning and beams > 1:
                    longest = generation_config.max_length - input_ids.shape[1]
                    ended = EndedBeams(generation_config, arranged.batch, longest)
                choice = Choice(fold, processors, main.shift, draw, main.processors, scores)
                stops = MainCriteria(criteria, blocks, main.shift, scores, ended)
                choice.stops = stops if self.settings.returning or self.late else None
                kwargs |= {"logits_processor": LogitsProcessorList([choice]), "stopping_criteria": stops}
                if beams > 1:
                    return _beam_search(model, input_ids, fold, generation_config, kwargs)
                if main.streamer is not None:
                    kwargs["streamer"] = MainRows(main.streamer, arranged.batch)
                with ExitStack() as undo:
                    if self.settings.leaving and stops.pads and not generation_config.return_dict_in_generate:
                        settled = getattr(self.observers.observe, "rows_leave", lambda: None)
                        undo.enter_context(leaving(model, plan, stops, settled, company))
                    output = model._sample(input_ids, generation_config=generation_config, **kwargs)
                fold.finish(stops.lengths)
                if scores is not None and not isinstance(output, Tensor):
                    output.scores = tuple(one.repeat(blocks, 1) for one in scores)
                return output

            going = [] if self._bound(generation) else list(self.late.values())
            with alongside(lvlm, going, arranged.inputs["input_ids"].shape[1]) as company:
                return lvlm.model.generate(**self.begun.inputs, **generation, custom_generate=decode), fold

    def _bound(self, generation: Mapping[str, Any]) -> bool:
        """Whether the rows of the main pass stay what they are: they are read in blocks of steps, or the caller's."""
        config = options.resolved(self.lvlm, generation)
        return bool(self.observers.readings) or bool(config.return_dict_in_generate)


def _beam_search(model: Any, input_ids: Tensor, fold: Fold, config: Any, kwargs: dict[str, Any]) -> Any:
    """The model's own, which says in its full output alone from which row each token of a text was chosen."""
    full = config.return_dict_in_generate
    if not full:
        config.return_dict_in_generate = True
        config.output_scores = config.output_logits = config.output_attentions = config.output_hidden_states = False
    output = model._beam_search(input_ids, generation_config=config, **kwargs)
    fold.finish(None, output.beam_indices[: fold.batch])
    return output if full else output.sequences


def end_tokens(lvlm: Layout, config: Any) -> tuple[int, ...]:
    """What ends a text in a call with this configuration."""
    found = config.eos_token_id
    if found is None:
        return lvlm.end_tokens
    return tuple(torch.as_tensor(found).flatten().tolist())


def _spread(rows: Tensor, beams: int) -> Tensor:
    return (rows[:, None] * beams + torch.arange(beams, device=rows.device)).flatten()


__all__ = ["Observers", "complete", "declare", "end_tokens", "prefill", "run"]
