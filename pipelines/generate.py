"""`generate` and `score`: the Python interface of the engine."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import compatibility
from .arguments import check_ids, check_layout, check_options
from .chain import decoders_alone
from .engine import options
from .engine.declarations import Branch, Reading, Step
from .engine.deferred_readings import DeferredReadings
from .engine.hooks import applied
from .engine.record import Record, Recorder, by_token, confidence, real
from .engine.rows import arrange, sequences
from .engine.run import Observers, complete, end_tokens, run
from .inputs.prepare import prepare
from .inputs.rows import extended
from .model import families
from .model.layout import Layout
from .registry import DECODERS, DETECTORS
from .results import Generation
from .risk.asking import refuse_asking


class NeverActed(UserWarning):
    """A method was asked for and changed nothing in the whole run."""


def generate(
    lvlm: Layout, inputs: Mapping[str, Tensor], decoders: Any = (), detectors: Any = (), return_logits: bool = False,
    seed: int | Sequence[int] | None = None, **generation: Any,
) -> Generation:  # fmt: skip
    """Decode a batch with methods in place and detectors reading along.

    Args:
        lvlm: the model. inputs: what its processor returns, left-padded.
        decoders: names, "name:field=value" or instances; they compose in order; none is plain decoding.
        detectors: likewise.
        return_logits: keep (batch, new, vocab) of what the choice was made from; greedy and sampling only.
        seed: with do_sample, one number (sample i uses seed + i) or one per sample.
        generation: what transformers' generate takes: max_new_tokens, do_sample, temperature, top_p, top_k, num_beams,
            repetition_penalty, logits_processor, stopping_criteria, …; they act on the mitigated logits of the main
            rows (docs/transformers.md).

    Raises:
        ValueError: inputs without input_ids, right-padded rows, an option outside its range, or a combination that has
            no meaning. TypeError: no LVLM, or an unknown argument.
    Warns:
        NeverActed: a method changed nothing at any step. pairs.DoubtfulPair: two of the decoders.
    """
    check_layout(lvlm, "veridical.generate")
    check_options(generation, ("inputs", "decoders", "detectors", "return_logits", "seed"))
    decoders, detectors = decoders_alone(decoders, "veridical.generate", lvlm.name), ready(detectors, lvlm)
    inputs = complete(lvlm, inputs)
    config = options.resolved(lvlm, generation)
    options.check(config, generation, methods=bool(decoders or detectors))
    beams = config.num_beams or 1
    if return_logits and beams > 1:
        raise ValueError("return_logits=True with num_beams > 1: beams change rows between steps; use num_beams=1")
    compatibility.check(decoders, stacklevel=3)
    readings = [d for detector in detectors for d in detector.readings(lvlm, inputs)] if beams == 1 else []
    recorder = Recorder(
        [r.name for r in readings if isinstance(r, Reading)], DeferredReadings(), end_tokens(lvlm, config),
        [r.name for r in readings if isinstance(r, Reading) and r.total],
    )  # fmt: skip
    observe = recorder if detectors and beams == 1 else None
    observers = Observers(readings, observe, recorder.deferred)
    output, fold, prompt = run(lvlm, inputs, decoders, observers, return_logits, seed, **generation)
    rows = output if isinstance(output, Tensor) else output.sequences
    batch = inputs["input_ids"].shape[0]
    ids = rows[: rows.shape[0] // len(fold.arranged.names), prompt:]
    mask = fold.real[:, : ids.shape[1]].to(ids.device)
    ids = ids.masked_fill(~mask, lvlm.pad_token)
    kept = torch.stack(fold.logits, 1) if return_logits else None
    tied = None if config.do_sample or beams > 1 else fold.tied
    out = Generation(ids, kept, _decode(lvlm, ids), broken=fold.broken, tied=tied)
    for number, decoder in enumerate(decoders):
        name = DECODERS.name_of(decoder)
        out.acted[name if name not in out.acted else f"{name}#{number}"] = acted = fold.acted(number)
        if number in fold.arranged.methods and not bool(acted.acted.any()):
            warnings.warn(f"{decoder!r} changed nothing at any step of {batch} samples", NeverActed, stacklevel=2)
    if detectors and beams == 1:
        lengths = inputs["attention_mask"].sum(1)
        record = recorder.record(ids, mask, lengths)
        out.risk = _risks(detectors, record)
    elif detectors:
        out.risk = score(lvlm, inputs, ids, detectors)
    known = [DETECTORS.name_of(one) for one in detectors if getattr(one, "is_before", False)]
    out.risk_before = {name: out.risk[name][:, 0] for name in known}
    return out


@dataclass(frozen=True)
class Call:
    """How a procedure calls the model: with the chain's decoders in place, and decoding as the run does."""

    lvlm: Layout
    decoders: Sequence[Any]
    detectors: Sequence[Any]
    system: str | None
    generation: Mapping[str, Any]

    def inputs(self, images: Sequence[Any], questions: Sequence[str]) -> dict[str, Tensor]:
        """Rows as `LVLM.prepare` makes them; an entry of `images` may be a list of several images."""
        return prepare(self.lvlm, images, questions, self.system)

    def generate(
        self, inputs: Mapping[str, Tensor], seeds: Sequence[int], return_logits: bool = False, **changes: Any
    ) -> Generation:
        """`veridical.generate` as the run decodes, but for `changes`. seeds: one per row, for sampling."""
        options = {**self.generation, **changes}
        drawn = list(seeds) if options.get("do_sample") else None
        return generate(
            self.lvlm, inputs, self.decoders, self.detectors, return_logits=return_logits, seed=drawn, **options
        )

    def silent(self) -> Call:
        """The same without detectors: for intermediate texts, which are not returned."""
        return replace(self, detectors=())


def score(lvlm: Layout, inputs: Mapping[str, Tensor], ids: Tensor, detectors: Any) -> dict[str, Tensor]:
    """Risk of every token of a finished text, in one teacher-forced pass: detector -> (batch, token), higher is worse.

    ids: (batch, token), padded on the right after the end.

    Raises:
        ValueError: ids of another shape, or outside the vocabulary. TypeError: no LVLM, or a text in place of ids.
    """
    check_layout(lvlm, "veridical.score")
    ids, detectors = check_ids(lvlm, inputs, ids), ready(detectors, lvlm)
    return _risks(detectors, teacher_force(lvlm, inputs, ids, detectors))


@torch.no_grad()
def teacher_force(lvlm: Layout, inputs: Mapping[str, Tensor], ids: Tensor, detectors: Sequence[Any]) -> Record:
    """One pass over prompt and text that reads what the detectors ask for at the rows that produce the text."""
    inputs, ids = complete(lvlm, inputs), ids.to(lvlm.device)
    declared: list[Any] = [d for detector in detectors for d in detector.readings(lvlm, inputs)]
    arranged = arrange([(d, -1) for d in declared], inputs, lvlm.pad_token)
    mask, blocks, forced = real(ids, lvlm.end_tokens), len(arranged.names), ids.shape[1]
    kind, real_rows = families.appended(lvlm.model, "token_type_ids"), mask.repeat(blocks, 1)
    rows = extended(arranged.inputs, ids.repeat(blocks, 1), kind, real_rows)
    step = Step(ids=inputs["input_ids"])
    where = replace(sequences(lvlm, replace(arranged, inputs=rows), forced=forced), real=real_rows)
    with applied(lvlm, arranged.placed, where, step) as plan:
        positions = families.direct_positions(lvlm.model, rows)
        logits = lvlm.model(**rows, **positions, use_cache=False, logits_to_keep=forced + 1).logits
        logits = logits[: arranged.batch, :-1]
        plan.check()
    logs, entropy, margin = confidence(logits.to(ids.device))
    chosen = logs.gather(2, ids[..., None])[..., 0]
    names = [d.name for d in declared if isinstance(d, Reading)]
    readings = {name: by_token(step.latest(name)).to(ids.device) for name in names}
    return Record(ids, mask, chosen, entropy, margin, inputs["attention_mask"].sum(1), readings)


def ready(detectors: Any, lvlm: Layout) -> list[Any]:
    """Detectors from names or instances, each with what it needs to know of the model, such as a trained probe.

    Raises:
        ValueError: two of one name, a detector that was trained on another model, one that cannot do without training,
            or one that asks the model again.
    """
    found = only_once(DETECTORS.make_all(detectors))
    refuse_asking(found, "veridical.generate, score or a gate")
    return [one.for_model(lvlm) if hasattr(one, "for_model") else one for one in found]


def only_once(detectors: Sequence[Any]) -> list[Any]:
    """The same detectors.

    Raises:
        ValueError: two of one name.
    """
    names = [DETECTORS.name_of(one) for one in detectors]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"two detectors are {twice[0]!r}, and risks are told apart by name: let one of them read along, and give "
            "the finished text to the other by veridical.score."
        )
    return list(detectors)


# -- helpers -------------------------------------------------------------------------------------------------------
def _decode(lvlm: Layout, ids: Tensor) -> list[str]:
    if lvlm.processor is None:
        return [""] * ids.shape[0]
    return [text.strip() for text in lvlm.processor.batch_decode(ids, skip_special_tokens=True)]


def _risks(detectors: Sequence[Any], record: Record) -> dict[str, Tensor]:
    return {
        DETECTORS.name_of(detector): detector.score(record).masked_fill(~record.mask, float("nan"))
        for detector in detectors
    }


def signature(cls: type) -> str:
    """A class's fields and defaults as a call: "VCD(alpha=1.0, …)"."""
    return cls.__name__ + str(inspect.signature(cls)).split(" ->")[0]


__all__ = ["Branch", "Call", "NeverActed", "generate", "ready", "score", "signature", "teacher_force"]
