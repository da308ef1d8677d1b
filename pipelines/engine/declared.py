"""What a decoder declares for a run: nothing at its neutral strength; an edit keeps the shape that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..registry import DECODERS
from .declarations import AttentionEdit, Branch, Declaration, HeadEdit, LogitsEdit, Reading, ResidualEdit

if TYPE_CHECKING:
    from ..model.layout import Inputs, Layout


def declarations_of(decoder: Any, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
    """A decoder's declarations in order; errors of shape name the decoder.

    Raises:
        TypeError: something that is no declaration. ValueError: a branch with another number of rows; during the run,
            an edit that returns another shape.
    """
    if getattr(decoder, "is_neutral", False):
        return
    name = DECODERS.name_of(decoder)
    for declared in decoder.edits(lvlm, inputs):
        if isinstance(declared, Branch):
            yield _branch(name, declared, len(inputs["input_ids"]))
        elif isinstance(declared, AttentionEdit | HeadEdit | ResidualEdit | LogitsEdit):
            yield replace(declared, apply=_checked(name, declared))
        elif isinstance(declared, Reading):
            yield declared
        else:
            raise TypeError(
                f"{name}: edits() gave {declared!r}, which is no declaration; possible: AttentionEdit, HeadEdit, "
                "ResidualEdit, LogitsEdit, Branch, Reading of veridical.pipelines.engine.declarations."
            )


def starting_over(decoders: Sequence[Any], streamer: Any = None) -> list[int]:
    """The numbers of the decoders whose runs can start over, at most one.

    Raises:
        ValueError: two of them, or one beside what cannot go back: a method that follows the run step by step, or a
            streamer.
    """
    active = [decoder for decoder in decoders if not getattr(decoder, "is_neutral", False)]
    name = DECODERS.name_of
    over = [decoder for decoder in active if getattr(decoder, "starts_over", False)]
    if not over:
        return []
    if len(over) > 1:
        raise ValueError(f"{name(over[0])}+{name(over[1])}: both go back in the text, each against the other; use one.")
    if bound := [decoder for decoder in active if getattr(decoder, "follows_run", False)]:
        raise ValueError(
            f"{name(bound[0])} and {name(over[0])} in one run: {name(over[0])} goes back in the text, and what "
            f"{name(bound[0])} has counted up to there cannot; leave one out, or switch going back off (retries=0)."
        )
    if streamer is not None:
        raise ValueError(
            f"{name(over[0])} goes back in the text, and a streamer has shown it already: leave the streamer out, or "
            "switch going back off (retries=0)."
        )
    return [number for number, decoder in enumerate(decoders) if decoder is over[0]]


def _branch(name: str, branch: Branch, batch: int) -> Branch:
    ids = branch.inputs.get("input_ids")
    if ids is None or len(ids) != batch:
        found = "no input_ids" if ids is None else f"{len(ids)} rows"
        raise ValueError(
            f"{name}: branch {branch.name!r} has {found}, the main inputs {batch}; a branch needs one for each sample."
        )
    return branch


def _checked(name: str, declared: Any) -> Any:
    """The edit's function, with an error that names the decoder where its result has another shape."""

    def apply(value: Tensor, where: Any) -> Tensor:
        edited = declared.apply(value, where)
        if not isinstance(edited, Tensor) or edited.shape != value.shape:
            found = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise ValueError(
                f"{name}: its {type(declared).__name__} returned {found} for a tensor of shape {tuple(value.shape)}; "
                "an edit returns the shape that it is given."
            )
        return edited

    return apply
