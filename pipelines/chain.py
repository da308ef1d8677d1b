"""Chains: decoders in order, behind at most one procedure, from names, "name:field=value" or instances."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from . import compatibility
from .registry import DECODERS, PROCEDURES, UnknownName, is_procedure, name_of, split_chain


@lru_cache(maxsize=256)
def chain(text: str, model: str = "") -> tuple[Any, ...]:
    """The procedure and decoders that a text stands for, in order: "vsv+vcd:alpha=2" is two; "greedy" is none.

    A process parses a text once: decoders never change.

    Args:
        model: its name; fields that the text leaves open take the paper's values for it, where it has some.

    Raises:
        UnknownName, ValueError: as `make_chain`; a pair that has no meaning.
    """
    methods = tuple(one for one in make_chain(split_chain(text), model) if name_of(one) != "greedy")
    compatibility.refuse(methods)
    return methods


def make_chain(wanted: Any, model: str = "") -> list[Any]:
    """Procedures and decoders from names, "name:field=value" or instances, in order.

    model: the model's name. Methods that are named take their paper's values for it in the fields that the text leaves
    open (`per_model.for_model`); an instance stays as it is.

    Raises:
        UnknownName, ValueError, TypeError: as `Registry.make`; and as `split`.
    """
    if wanted is None:
        return []
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        wanted = [wanted]
    methods = [_make(one, model) for one in wanted]
    split(methods)
    return methods


def split(methods: Sequence[Any]) -> tuple[Any | None, list[Any]]:
    """(procedure, decoders) of instances in order; None where there is no procedure.

    Raises:
        ValueError: two procedures, or one that does not stand in front.
    """
    at = [place for place, one in enumerate(methods) if is_procedure(one)]
    if len(at) > 1:
        two = " and ".join(name_of(methods[place]) for place in at)
        raise ValueError(
            f"{two} each decide by themselves how often the model is called and what becomes of its texts, so that "
            "neither can run inside the other; choose one of them (decoders can follow it)"
        )
    if at and at != [0]:
        first, name = "+".join(name_of(one) for one in methods[: at[0]]), name_of(methods[at[0]])
        raise ValueError(
            f"{first}+{name}: a procedure comes first and the decoders behind it apply to each of its calls; "
            f"write {name}+{first}"
        )
    return (methods[0], list(methods[1:])) if at else (None, list(methods))


def decoders_alone(wanted: Any, where: str, model: str = "") -> list[Any]:
    """The decoders of a chain, for what runs one pass of decoding. model: as in `make_chain`.

    Raises:
        ValueError: the chain has a procedure.
    """
    procedure, decoders = split(make_chain(wanted, model))
    if procedure is not None:
        raise ValueError(
            f"{where} decodes once, from inputs that are ready, and {name_of(procedure)} asks several questions about "
            "the image itself: use lvlm.answer or lvlm.caption, or `veridical answer`, which take "
            f'decoders=["{name_of(procedure)}"]'
        )
    return decoders


def type_of(name: str) -> Any:
    """The class of that name, procedure or decoder."""
    return (PROCEDURES if name in PROCEDURES.names else DECODERS).type(name)


def _make(wanted: Any, model: str) -> Any:
    if isinstance(wanted, str):
        if wanted.partition(":")[0].strip() in PROCEDURES.names:
            return PROCEDURES.make(wanted, model)
        try:
            return DECODERS.make(wanted, model)
        except UnknownName as error:
            name = wanted.partition(":")[0].strip().lower()
            near = difflib.get_close_matches(name, PROCEDURES.names, n=1, cutoff=0.5)
            hint = f' Did you mean "{near[0]}"?' if near and "Did you mean" not in str(error) else ""
            raise UnknownName(f"{error}{hint} Procedures: {', '.join(sorted(PROCEDURES.names))}.") from None
    instance = wanted() if isinstance(wanted, type) else wanted
    return instance if is_procedure(instance) else DECODERS.make(instance)
