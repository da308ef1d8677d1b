"""Procedures: published methods that call the model several times per answer. Adding one adds a line to NAMES.

They stand where decoders are named, in front: `["mvp", "vcd"]` or "mvp+vcd" runs MVP with VCD in each of its calls.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .registry import DECODERS, Registry, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

    from .lvlm import LVLM
    from .results import Answer, Generation

PROCEDURES = Registry("procedure", "veridical.decoders.procedures", "answers")


class Procedure(Protocol):
    """A frozen dataclass of a paper's hyper-parameters that answers questions by several calls of the model.

    `acted` of its answers has, under its name, steps (1: an answer is one decision), acted (1 where the procedure made
    that decision, 0 where the answer is the model's plain one), flipped (1 where it is known to be another than the
    plain one would be), kl (0: there is no distribution to compare), and what else it found.
    """

    paper: ClassVar[str]
    changes: ClassVar[str]
    cost: ClassVar[str]
    differs: ClassVar[str]

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for what it cannot do, before the first call."""

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        """One per image, without settings and seconds. What an image gets does not depend on the others."""


@dataclass(frozen=True)
class Call:
    """How a procedure calls the model: with the chain's decoders in place, and decoding as the run does."""

    lvlm: LVLM
    decoders: Sequence[Any]
    detectors: Sequence[Any]
    system: str | None
    generation: Mapping[str, Any]

    def inputs(self, images: Sequence[Any], questions: Sequence[str]) -> dict[str, Tensor]:
        """Rows as `LVLM.prepare` makes them; an entry of `images` may be a list of several pictures."""
        return self.lvlm.prepare(images, questions, self.system)

    def generate(
        self, inputs: Mapping[str, Tensor], seeds: Sequence[int], return_logits: bool = False, **changes: Any
    ) -> Generation:
        """`veridical.generate` as the run decodes, but for `changes`. seeds: one per row, for sampling."""
        from .generate import generate

        options = {**self.generation, **changes}
        drawn = list(seeds) if options.get("do_sample") else None
        return generate(
            self.lvlm, inputs, self.decoders, self.detectors, return_logits=return_logits, seed=drawn, **options
        )

    def silent(self) -> Call:
        """The same without detectors: for texts on the way that nobody gets to see."""
        return replace(self, detectors=())


# -- chains --------------------------------------------------------------------------------------------------------
def is_procedure(thing: Any) -> bool:
    """Whether an instance answers by several calls of the model."""
    return callable(getattr(thing, PROCEDURES.needs, None))


def make_chain(wanted: Any) -> list[Any]:
    """Procedures and decoders from names, "name:field=value" or instances, in order.

    Raises:
        UnknownName, ValueError, TypeError: as `Registry.make`; and as `split`.
    """
    if wanted is None:
        return []
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        wanted = [wanted]
    chain = [_make(one) for one in wanted]
    split(chain)
    return chain


def split(chain: Sequence[Any]) -> tuple[Any | None, list[Any]]:
    """(procedure, decoders) of a chain of instances; None where it has no procedure.

    Raises:
        ValueError: two procedures, or one that does not stand in front.
    """
    at = [place for place, one in enumerate(chain) if is_procedure(one)]
    if len(at) > 1:
        two = " and ".join(name_of(chain[place]) for place in at)
        raise ValueError(
            f"{two} each decide by themselves how often the model is called and what becomes of its texts, so that "
            "neither can run inside the other; choose one of them (decoders can follow it)"
        )
    if at and at != [0]:
        first, name = "+".join(name_of(one) for one in chain[: at[0]]), name_of(chain[at[0]])
        raise ValueError(
            f"{first}+{name}: a procedure comes first and the decoders behind it apply to each of its calls; "
            f"write {name}+{first}"
        )
    return (chain[0], list(chain[1:])) if at else (None, list(chain))


def decoders_alone(wanted: Any, where: str) -> list[Any]:
    """The decoders of a chain, for what runs one pass of decoding.

    Raises:
        ValueError: the chain has a procedure.
    """
    procedure, decoders = split(make_chain(wanted))
    if procedure is not None:
        raise ValueError(
            f"{where} decodes once, from inputs that are ready, and {name_of(procedure)} asks several questions about "
            "the picture itself: use lvlm.answer or lvlm.caption, or `veridical answer`, which take "
            f'decoders=["{name_of(procedure)}"]'
        )
    return decoders


def name_of(instance: Any) -> str:
    """The registered name of a procedure or decoder."""
    return (PROCEDURES if is_procedure(instance) else DECODERS).name_of(instance)


def type_of(name: str) -> Any:
    """The class of that name, procedure or decoder."""
    return (PROCEDURES if name in PROCEDURES.names else DECODERS).type(name)


def _make(wanted: Any) -> Any:
    if isinstance(wanted, str):
        if wanted.partition(":")[0].strip() in PROCEDURES.names:
            return PROCEDURES.make(wanted)
        try:
            return DECODERS.make(wanted)
        except UnknownName as error:
            name = wanted.partition(":")[0].strip().lower()
            near = difflib.get_close_matches(name, PROCEDURES.names, n=1, cutoff=0.5)
            hint = f' Did you mean "{near[0]}"?' if near and "Did you mean" not in str(error) else ""
            raise UnknownName(f"{error}{hint} Procedures: {', '.join(sorted(PROCEDURES.names))}.") from None
    made = wanted() if isinstance(wanted, type) else wanted
    return made if is_procedure(made) else DECODERS.make(made)
