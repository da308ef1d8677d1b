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
from .attention import Sequences
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
    logits_processor: Sequence[Any] = (), later: Postponed | None = None, **generation: Any,
) -> tuple[Any, Fold, int]:  # fmt: skip
    """Decode through the model's own generate. Returns its output (all row blocks), the fold, and the prompt length.

    later: where `readings` of attention wait until several steps can be read together; without it each step is read.
    """
    inputs = complete(lvlm, inputs)
    declared = declare(lvlm, inputs, decoders) + [(reading, -1) for reading in readings]
    made = arrange(declared, inputs, lvlm.pad_token)
    beams = generation["num_beams"] = beam_count(lvlm, generation)
    placed = [Placed(p.declaration, _spread(p.rows, beams), p.method) for p in made.placed]
    step = Step()
    blocks, prompt = len(made.names), made.inputs["input_ids"].shape[1]
    with applied(lvlm, placed, sequences(lvlm, made, beams), step, later) as plan:
        fold = Fold(made, plan, beams, len(decoders), end_tokens(lvlm, generation), return_logits, observe)
        streamer = generation.pop("streamer", None)
        if streamer is not None:
            streamer.put(made.inputs["input_ids"][: made.batch].cpu())
            streamer = MainRows(streamer, made.batch)

        def decode(model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any,
                   generation_config: Any, **kwargs: Any) -> Any:  # fmt: skip
            last = []
            if generation_config.do_sample and beams == 1 and (blocks > 1 or seed is not None):
                last = [Draw(blocks, made.batch, seed)]
            loop = model._sample if beams == 1 else model._beam_search
            if streamer is not None:
                kwargs["streamer"] = streamer
            return loop(
                input_ids, logits_processor=LogitsProcessorList([*logits_processor, *last]),
                stopping_criteria=stopping_criteria, generation_config=generation_config, **kwargs,
            )  # fmt: skip

        output = lvlm.model.generate(
            **made.inputs, **generation, logits_processor=LogitsProcessorList([fold, *logits_processor]),
            custom_generate=decode,
        )  # fmt: skip
    return output, fold, prompt


def beam_count(lvlm: Layout, generation: Mapping[str, Any]) -> int:
    """Beams that these arguments ask for, the model's own default included."""
    return setting(lvlm, generation, "num_beams") or 1


def setting(lvlm: Layout, generation: Mapping[str, Any], name: str) -> Any:
    """A setting of generate: of the call, else of its configuration, else of the model's own."""
    if generation.get(name) is not None:
        return generation[name]
    return getattr(generation.get("generation_config") or lvlm.generation_config, name, None)


def end_tokens(lvlm: Layout, generation: Mapping[str, Any]) -> tuple[int, ...]:
    """What ends a text in this call."""
    found = setting(lvlm, generation, "eos_token_id")
    if found is None:
        return lvlm.end_tokens
    return tuple(torch.as_tensor(found).flatten().tolist())


def _spread(rows: Tensor, beams: int) -> Tensor:
    return (rows[:, None] * beams + torch.arange(beams, device=rows.device)).flatten()
