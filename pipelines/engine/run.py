"""The one engine: arranges branches as rows, puts declarations in place, runs the model's own decoding loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from ..inputs.rows import stack
from ..model import families
from . import options
from .attention import Sequences
from .choice import Choice, MainCriteria
from .declarations import Branch, Declaration, LogitsEdit, Reading, Step
from .hooks import Placed, applied
from .logits import Draw, Fold, MainRows

if TYPE_CHECKING:
    from ..model.layout import Layout
    from .deferred_readings import Postponed


@dataclass(frozen=True)
class Arrangement:
    """The rows of a run: block names, stacked inputs and every declaration with the rows it concerns."""

    names: Sequence[str]
    inputs: dict[str, Tensor]
    placed: Sequence[Placed]
    edits: Sequence[tuple[LogitsEdit, int]]
    batch: int
    methods: frozenset[int] = frozenset()  # the numbers of the methods that declared anything
    own: Mapping[int, Mapping[str, str]] = field(default_factory=dict)  # method -> its branch -> name among all


def arrange(declared: Sequence[tuple[Declaration, int]], inputs: Mapping[str, Tensor], pad: int) -> Arrangement:
    """Main rows first, then a block per branch. A branch inherits the edits declared before it.

    Raises:
        ValueError: two branches of one name, an edit of a branch that nobody opened, or a branch with another number
            of rows.
    """
    batch, device = inputs["input_ids"].shape[0], inputs["input_ids"].device
    opened: dict[str, int] = {}
    own: dict[int, dict[str, str]] = {}  # method -> its name of a branch -> the name among all
    blocks: list[Mapping[str, Tensor]] = [inputs]
    for at, (declaration, method) in enumerate(declared):
        if isinstance(declaration, Branch):
            names_here = own.setdefault(method, {})
            if declaration.name in ("main", "all"):
                raise ValueError(f"a branch is called {declaration.name!r}, which is taken: give it another name")
            if declaration.name in names_here:
                raise ValueError(f"two branches are called {declaration.name!r}; give one of them another name")
            if declaration.inputs["input_ids"].shape[0] != batch:
                found = declaration.inputs["input_ids"].shape[0]
                raise ValueError(f"branch {declaration.name!r} has {found} rows, the main inputs {batch}")
            name = declaration.name if declaration.name not in opened else f"{declaration.name}#{method}"
            opened[name], names_here[declaration.name] = at, name
            blocks.append(declaration.inputs)
    names = ["main", *opened]
    rows = {name: torch.arange(batch * k, batch * (k + 1), device=device) for k, name in enumerate(names)}
    placed = []
    for at, (declaration, method) in enumerate(declared):
        if isinstance(declaration, Branch | LogitsEdit):
            continue
        wanted = declaration.branch
        if wanted == "all":
            scope = names
        elif wanted is not None:
            scope = [own.get(method, {}).get(wanted, wanted)]
        elif isinstance(declaration, Reading):
            scope = ["main"]
        else:
            scope = ["main", *(name for name, when in opened.items() if when > at)]
        if unknown := [name for name in scope if name not in rows]:
            raise ValueError(f"no branch {unknown[0]!r}; opened here: {', '.join(names)}")
        placed.append(Placed(declaration, torch.cat([rows[name] for name in scope]), method))
    edits = [(d, method) for d, method in declared if isinstance(d, LogitsEdit)]
    methods = frozenset(method for _, method in declared)
    return Arrangement(names, stack(blocks, pad), placed, edits, batch, methods, own)


def sequences(lvlm: Layout, made: Arrangement, repeat: int = 1, given: int = 0) -> Sequences:
    """Where the image is in every row of a run. given: tokens that were appended to the prompts."""
    ids, mask = made.inputs["input_ids"], made.inputs["attention_mask"]
    prompt = ids.shape[1] - given
    sample = torch.arange(made.batch, device=ids.device).repeat(len(made.names)).repeat_interleave(repeat)
    image = lvlm.image_mask(ids[:, :prompt]).repeat_interleave(repeat, dim=0)
    padding = (mask[:, :prompt] == 0).repeat_interleave(repeat, dim=0)
    return Sequences(image, padding, sample, given=given)


def complete(lvlm: Layout, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inputs as tensors on the model's device, with an attention mask.

    Raises:
        ValueError: no `input_ids`, or rows padded on the right.
    """
    given = {name: value for name, value in inputs.items() if isinstance(value, Tensor) and name != "labels"}
    out = {name: value.to(lvlm.device) for name, value in given.items()}
    if "input_ids" not in out:
        raise ValueError(f"inputs need input_ids, as a processor returns them; found {', '.join(inputs) or 'nothing'}")
    for name, value in out.items():
        if name.startswith("pixel_values") and value.is_floating_point():
            out[name] = value.to(lvlm.dtype)
    ids, pad = out["input_ids"], lvlm.pad_token
    known = (ids != pad).long() if pad not in lvlm.end_tokens else torch.ones_like(ids)
    mask = out.setdefault("attention_mask", known)
    if not bool((mask[:, -1] == 1).all()):
        raise ValueError("rows must be padded on the left: set processor.tokenizer.padding_side = 'left'")
    return families.with_blank_picture(lvlm.model, out)


@torch.no_grad()
def prefill(lvlm: Layout, inputs: Mapping[str, Tensor], declarations: Sequence[Declaration]) -> Step:
    """One pass over the prompt, for methods that decide something before they decode.

    Returns the step with its readings and, per branch, the logits of the last position, (batch, vocab).
    """
    inputs = complete(lvlm, inputs)
    made = arrange([(d, -1) for d in declarations], inputs, lvlm.pad_token)
    step = Step(ids=inputs["input_ids"])
    with applied(lvlm, made.placed, sequences(lvlm, made), step):
        where = families.direct_positions(lvlm.model, made.inputs)
        logits = lvlm.model(**made.inputs, **where, use_cache=False, logits_to_keep=1).logits[:, -1].to(lvlm.device)
    step.branches = dict(zip(made.names, logits.chunk(len(made.names)), strict=True))
    return step


def declare(lvlm: Layout, inputs: Mapping[str, Tensor], decoders: Sequence[Any]) -> list[tuple[Declaration, int]]:
    """Every declaration of every decoder in order, with the decoder's number."""
    return [(d, number) for number, decoder in enumerate(decoders) for d in decoder.edits(lvlm, inputs)]


@torch.no_grad()
def run(
    lvlm: Layout, inputs: Mapping[str, Tensor], decoders: Sequence[Any], readings: Sequence[Declaration] = (),
    return_logits: bool = False, seed: int | Sequence[int] | None = None, observe: Any = None,
    later: Postponed | None = None, prepared: tuple[Any, Any] | None = None, **generation: Any,
) -> tuple[Any, Fold, int]:  # fmt: skip
    """Decode through the model's own generate. Returns its output (all row blocks), the fold, and the prompt length.

    later: where `readings` of attention wait until several steps can be read together; without it each step is read.
    prepared: processors and criteria of the main rows, where transformers has made them already.
    """
    inputs = complete(lvlm, inputs)
    declared = declare(lvlm, inputs, decoders) + [(reading, -1) for reading in readings]
    made = arrange(declared, inputs, lvlm.pad_token)
    config = options.resolved(lvlm, generation)
    beams = config.num_beams or 1
    placed = [Placed(p.declaration, _spread(p.rows, beams), p.method) for p in made.placed]
    blocks, prompt = len(made.names), made.inputs["input_ids"].shape[1]
    main = options.MainPrompt(lvlm, generation, config, inputs, prompt - inputs["input_ids"].shape[1], prepared)
    with applied(lvlm, placed, sequences(lvlm, made, beams), Step(), later) as plan:
        fold = Fold(made, plan, beams, len(decoders), return_logits, observe)
        if main.streamer is not None:
            main.streamer.put(inputs["input_ids"].cpu())

        def decode(model: Any, input_ids: Tensor, generation_config: Any, **kwargs: Any) -> Any:
            processors, criteria = main.lists(model, generation_config, kwargs.get("attention_mask"), beams)
            draw, scores = None, None
            if generation_config.do_sample and beams == 1 and (blocks > 1 or seed is not None):
                draw, scores = Draw(1, made.batch, seed), [] if generation_config.return_dict_in_generate else None
            choice = Choice(fold, processors, main.shift, draw, main.processors, scores)
            stops = MainCriteria(criteria, blocks, main.shift, scores)
            kwargs |= {"logits_processor": LogitsProcessorList([choice]), "stopping_criteria": stops}
            if beams > 1:
                return _beam_search(model, input_ids, fold, generation_config, kwargs)
            if main.streamer is not None:
                kwargs["streamer"] = MainRows(main.streamer, made.batch)
            output = model._sample(input_ids, generation_config=generation_config, **kwargs)
            fold.finish(stops.lengths)
            if scores is not None and not isinstance(output, Tensor):
                output.scores = tuple(one.repeat(blocks, 1) for one in scores)
            return output

        output = lvlm.model.generate(**made.inputs, **generation, custom_generate=decode)
    return output, fold, prompt


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
