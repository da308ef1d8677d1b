"""A gate: pay for a decoder only where a detector fires."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeGuard

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_threshold
from ..pipelines.engine.declarations import (
    AttentionEdit,
    Branch,
    Declaration,
    HeadEdit,
    LogitsEdit,
    Reading,
    ResidualEdit,
    Step,
)
from ..pipelines.engine.declared import declarations_of
from ..pipelines.engine.online_risk import RunningRisk, prefixed
from ..pipelines.method import Decoder, count, flag, method, one_of, ruled
from ..pipelines.prefill.memo import forget_edited
from ..pipelines.registry import DECODERS, DETECTORS
from ..pipelines.risk.asking import refuse_asking

if TYPE_CHECKING:
    from ..pipelines.engine.call import LayerCall
    from ..pipelines.model.layout import Inputs, Layout

OVER = ("now", "mean", "max")
PREFIX = "gate/"


def running(
    risks: Float[Tensor, "row token"], over: Literal["now", "mean", "max"], window: int
) -> Float[Tensor, " row"]:
    """The newest risk, or the mean or largest of the newest `window`."""
    if over == "now":
        return risks[:, -1]
    newest = risks[:, -window:]
    return newest.mean(1) if over == "mean" else newest.amax(1)


def threshold_word(value: Any) -> float | str:
    """A threshold as it is kept: infinities as words, so that the repr can be read back."""
    found = check_threshold(value)
    return value if not math.isinf(found) else "inf" if found > 0 else "-inf"


@dataclass(frozen=True)
class Gate(Decoder):
    r"""Let a decoder act only at steps, and in samples, where a detector's running risk exceeds a threshold.

    z_t = edit(l_t) if r_t > θ else l_t,   r_t the risk of step t, over its own risk or those of the latest steps

    l_t: (batch, vocab) logits of step t. The risk of step t is known once its forward pass is done, with the likeliest
    token standing in for the one that is not chosen yet. So edits of the logits of step t are gated by r_t; edits
    inside the pass of step t (attention, heads, states) by r_{t−1}, position by position, and what a position was fed
    with stays. The prompt's pass has no risk before it and stays plain unless `prefill` is set. With beams logits are
    gated beam by beam, and the pass by the largest risk among a sample's beams. Edits of a branch alone are not gated:
    they make the branch what it is.

    l_t, r_t, θ: `decoder` edits them, `detector` reads what the gated run computes, past edits included, `threshold` is
    in its units. `over` and `window` say which steps count. With `prefill` and θ = −inf this is the ungated decoder. A
    decoder that is named takes its paper's values for the model, as it does ungated.

    Raises:
        UnknownName, ValueError: no such decoder or detector, a gate inside a gate, or a value outside its range.

    What the decoder finds out before decoding (vectors, heads, blind tokens) is paid for in any case. A branch that
    nothing edits or reads inside is read late: its prompt when the gate first opens, and the tokens that it has missed
    in one pass when it opens again; a row that is needed again within 12 steps goes along with the main rows from then
    on, which is cheaper. With beams, and with a cache of fixed size, branches run along at every step (docs/gating.md).
    It is no paper's method; "gating" is this toolkit's own.
    """

    decoder: Any = method("vcd", DECODERS, "what is gated")
    detector: Any = method("entropy", DETECTORS, "whose risk opens the gate")
    threshold: float | str = ruled(
        1.0, "θ, risk above which the decoder acts", "a number in the detector's units",
        '"inf" never acts, which is plain decoding; "-inf" always does.', lambda name, value: threshold_word(value),
    )  # fmt: skip
    over: Literal["now", "mean", "max"] = one_of(
        OVER, "which steps the running risk is of", "now: this step; mean or max: of the newest `window`."
    )
    window: int = count(8, "steps that the running risk is of", "It has no effect with over=\"now\".", low=1)
    prefill: bool = flag(False, "let edits change the prompt's pass too")

    follows_run = True
    neutral = {"threshold": "inf"}
    faint = {"threshold": 1e9}

    def validate(self) -> None:
        if isinstance(DECODERS.make(self.decoder), Gate):
            raise ValueError(f"decoder={self.decoder!r} is a gate itself; gate its decoder instead")
        refuse_asking([DETECTORS.make(self.detector)], "a gate, which opens while the answer is written,")
        if getattr(DECODERS.make(self.decoder), "starts_over", False):
            raise ValueError(
                f"decoder={self.decoder!r} goes back in the text, where the running risk cannot follow; use it without "
                "a gate, or switch going back off (retries=0)"
            )

    @property
    def stands_for(self) -> Any:
        return None if self.is_neutral else DECODERS.make(self.decoder)

    def for_model(self, model: str, keep: Collection[str] = ()) -> Self:
        """With its decoder's values for that model, where the decoder is named and its paper has some."""
        fitted = DECODERS.make(self.decoder, model)
        return self if fitted == DECODERS.make(self.decoder) else replace(self, decoder=fitted)

    def fetch(self, lvlm: Layout) -> None:
        """Load now what the decoder needs beside the model, unless the gate never opens."""
        needs = getattr(DECODERS.make(self.decoder), "fetch", None)
        if needs is not None and not self.is_neutral:
            needs(lvlm)

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        threshold = check_threshold(self.threshold)
        detector = DETECTORS.make(self.detector)
        detector = getattr(detector, "for_model", lambda lvlm: detector)(lvlm)
        reads = prefixed(detector.readings(lvlm, inputs), PREFIX)
        names = {one.name.removeprefix(PREFIX): one.name for one in reads if isinstance(one, Reading)}
        door = _Door(self, threshold, RunningRisk(detector, names, inputs["attention_mask"].sum(1)))
        yield LogitsEdit(door.decide)
        for declared in declarations_of(DECODERS.make(self.decoder, lvlm.name), lvlm, inputs):
            if isinstance(declared, LogitsEdit):
                yield LogitsEdit(partial(door.logits, declared))
            elif isinstance(declared, Branch):
                yield replace(declared, late=threshold > -math.inf)  # one that is needed at every step runs along
            elif isinstance(declared, ResidualEdit) and declared.at == "vision_mlp":
                if self.prefill:  # the tower sees the image before any token is chosen
                    yield declared
            elif _on_main(declared):
                queries = 2 if isinstance(declared, AttentionEdit) else 1
                gated: Any = partial(door.inside, declared, queries)
                yield replace(declared, apply=gated)
            else:
                yield declared
        forget_edited()
        yield from reads  # last, as a run's own detectors are: a branch of theirs inherits the edits


def gate(decoder: Any, detector: Any, threshold: float | str, **settings: Any) -> Gate:
    """`Gate` as a function: gate("vcd", "entropy", 1.0)."""
    return Gate(decoder, detector, threshold, **settings)


class _Door:
    """Which steps are open, while one run lasts.

    now: (row,) of the step at hand. past: one (sample,) per step, which opens the pass of the step after it.
    """

    def __init__(self, settings: Gate, threshold: float, risk: RunningRisk) -> None:
        self.settings, self.threshold, self.risk = settings, threshold, risk
        self.now: Bool[Tensor, " row"] | None = None
        self.past: list[Bool[Tensor, " sample"]] = []

    def decide(self, logits: Float[Tensor, "row vocab"], step: Step) -> Float[Tensor, "row vocab"]:
        """Decide for this step, and leave the logits as they are."""
        risk = running(self.risk(step), self.settings.over, self.settings.window)
        self.now = (risk > self.threshold).to(logits.device)
        self.past.append(self.now.unflatten(0, (len(self.risk.prompt), -1)).any(1))
        return logits

    def logits(self, edit: LogitsEdit, logits: Float[Tensor, "row vocab"], step: Step) -> Float[Tensor, "row vocab"]:
        assert self.now is not None
        step.wanted = self.now
        return _where(self.now, lambda: edit.apply(logits, step), logits)

    def inside(
        self, edit: ResidualEdit | HeadEdit | AttentionEdit, axis: int, value: Tensor, call: LayerCall
    ) -> Tensor:
        """Change the positions that were fed while the gate was open. axis: of the queries."""
        positions = self.positions(call, value.shape[axis]).to(value.device)
        shape = [1] * value.dim()
        shape[0], shape[axis] = positions.shape
        return _where(positions.view(shape), lambda: edit.apply(value, call), value)  # type: ignore[arg-type]

    def positions(self, call: LayerCall, queries: int) -> Bool[Tensor, "batch query"]:
        """Which of the pass's positions are open, whether or not a cache spares the others."""
        sample, prompt = call.sequences.sample, call.sequences.image.shape[1]
        new = call.sequences.seen - prompt
        before = sample.new_full((len(sample), prompt), self.settings.prefill, dtype=torch.bool)
        if new == 0:
            return before[:, prompt - queries :]
        after = torch.stack(self.past[-new:], 1).to(sample.device)[sample]  # sample new -> row new
        return torch.cat([before, after], 1)[:, -queries:]


def _on_main(declared: Declaration) -> TypeGuard[ResidualEdit | HeadEdit | AttentionEdit]:
    """An edit inside the pass that reaches the main rows; one of a branch alone makes the branch what it is."""
    return isinstance(declared, ResidualEdit | HeadEdit | AttentionEdit) and declared.branch in (None, "all", "main")


def _where(open_: Bool[Tensor, ...], edited: Any, plain: Tensor) -> Tensor:
    """`edited()` where it is open; it is not computed where nothing is, and taken whole where everything is."""
    if not open_.any():
        return plain
    if open_.all():
        return edited()
    return torch.where(open_, edited(), plain) if open_.dim() > 1 else torch.where(open_[:, None], edited(), plain)
