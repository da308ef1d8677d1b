"""What decoders, detectors and procedures have in common: frozen values whose fields say what may stand in them.

A field's rule is its metadata: `beta: float = share(0.1, "plausibility cut", "0 is none. Paper: 0.1.")`. The base class
checks every rule when an instance is made, and the command line shows them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from . import checks
from .per_model import for_model
from .registry import DECODERS, DETECTORS, Registry

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from .engine.declarations import Branch, Declaration, Reading
    from .engine.record import Record
    from .model.layout import Inputs, Layout

RULE = "rule"
NO_IMAGE = "the prompt without its image"  # what several contrasts are against


# -- the rules of fields -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rule:
    """What may stand in a field.

    meaning: what the field is. possible: its values in words. note: the paper's values, and what some values do.
    kept: (name, value) -> the value that is kept; raises ValueError for one that is not possible.
    """

    meaning: str
    possible: str
    note: str
    kept: Callable[[str, Any], Any]

    def __str__(self) -> str:
        text = ", ".join(part for part in (self.meaning, self.possible) if part)
        return f"{text}. {self.note}" if self.note else f"{text}."


def ruled(
    default: Any, meaning: str, possible: str = "", note: str = "",
    kept: Callable[[str, Any], Any] = lambda name, value: value,
) -> Any:  # fmt: skip
    """A field with a rule of its own, by default without a check. None is possible where it is the default."""
    check = kept if default is not None else lambda name, value: None if value is None else kept(name, value)
    return dataclasses.field(default=default, metadata={RULE: Rule(meaning, possible, note, check)})


def share(default: float | None, meaning: str, note: str = "", low: float = 0.0) -> Any:
    """A number from `low` to 1."""
    kept = lambda name, value: checks.check_range(name, value, low, 1, meaning)
    return ruled(default, meaning, "0 to 1" if low == 0 else "above 0 to 1", note, kept)


def share_or_count(default: float, meaning: str, note: str = "") -> Any:
    """A share from 0 to 1 as a float, or a count, 1 or more, as a whole number."""

    def kept(name: str, value: Any) -> Any:
        either = f"{meaning}: a share as a float, a count as a whole number"
        if isinstance(value, int) and not isinstance(value, bool):
            return checks.check_count(name, value, either, low=1)
        return checks.check_range(name, value, 0, 1, either)

    return ruled(default, meaning, "a share from 0 to 1, or a whole number of them", note, kept)


def number(default: float | None, meaning: str, note: str = "", low: float = 0.0) -> Any:
    """A finite number, `low` or more."""
    kept = lambda name, value: checks.check_at_least(name, value, low, meaning)
    return ruled(default, meaning, f"{low:g} or more", note, kept)


def positive(default: float | None, meaning: str, note: str = "", least: float = 1e-6) -> Any:
    """A finite number above 0."""
    kept = lambda name, value: checks.check_at_least(name, value, least, meaning)
    return ruled(default, meaning, "above 0", note, kept)


def count(default: int | None, meaning: str, note: str = "", low: int = 0, high: int | None = None) -> Any:
    """A whole number, `low` or more and at most `high`."""
    possible = f"{low} to {high}" if high is not None else f"{low} or more"
    kept = lambda name, value: checks.check_count(name, value, meaning, low, high)
    return ruled(default, meaning, possible, note, kept)


def seed(meaning: str = "of the noise", note: str = "") -> Any:
    """A whole number that random draws start from."""
    kept = lambda name, value: checks.check_seed(name, value, meaning)
    return ruled(0, f"seed {meaning}", "any whole number", note, kept)


def flag(default: bool, meaning: str, note: str = "") -> Any:
    """True or False."""
    return ruled(default, meaning, "True or False", note, lambda name, value: checks.check_flag(name, value, meaning))


def one_of(choices: Sequence[str], meaning: str, note: str = "", default: str | None = None) -> Any:
    """One of some words, by default the first."""
    possible = " or ".join(f'"{choice}"' for choice in choices)
    kept = lambda name, value: checks.check_choice(name, value, choices, meaning)
    return ruled(choices[0] if default is None else default, meaning, possible, note, kept)


def whole_numbers(
    default: Sequence[int] | None, meaning: str, note: str = "", possible: str = "whole numbers", empty: bool = False
) -> Any:
    """A tuple of whole numbers; a list becomes one."""
    kept = lambda name, value: checks.check_integers(name, value, meaning, empty)
    return ruled(default, meaning, possible, note, kept)


def layers_of(meaning: str, note: str = "") -> Any:
    """0-based layers, or None for the method's own choice."""
    return whole_numbers(None, meaning, note, "0-based numbers", empty=True)


def pairs_of(meaning: str, note: str = "") -> Any:
    """Pairs of a 0-based layer and a query head, or None for the method's own choice."""
    return ruled(None, meaning, "pairs (layer, head), both from 0", note, checks.check_pairs)


def method(default: Any, registry: Registry, meaning: str, note: str = "") -> Any:
    """A decoder or detector: a name, "name:field=value,…", or an instance."""

    def kept(name: str, value: Any) -> Any:
        registry.make(value)
        return value

    return ruled(default, meaning, f"the name of a {registry.kind} or an instance", note, kept)


def rules(cls: Any) -> dict[str, Rule]:
    """The rules of a class's fields, by name."""
    return {field.name: field.metadata[RULE] for field in dataclasses.fields(cls) if RULE in field.metadata}


# -- the three kinds -----------------------------------------------------------------------------------------------
class Checked:
    """A frozen dataclass whose fields are checked by their rules; errors name the method.

    released: what differs from the defaults in the authors' code; None where no code is known or there is no paper.
    """

    registry: ClassVar[Registry]
    released: ClassVar[Mapping[str, Any] | None] = None

    def __post_init__(self) -> None:
        try:
            for name, rule in rules(self).items():
                value = getattr(self, name)
                if (kept := rule.kept(name, value)) is not value:
                    object.__setattr__(self, name, kept)
            self.validate()
        except ValueError as error:
            raise type(error)(f"{self.registered}: {error}") if type(error) is ValueError else error from None

    def validate(self) -> None:
        """Raise ValueError for fields that do not go together."""

    @property
    def registered(self) -> str:
        """The name under which the class is registered."""
        return self.registry.name_of(self)

    @classmethod
    def official(cls, **changes: Any) -> Self:
        """The method as the authors' code has it, but for `changes`.

        Raises:
            ValueError: the class has no `released` settings.
        """
        if cls.released is None:
            raise ValueError(f"{cls.__name__} has no settings of released code: it follows no code that is known.")
        return cls(**{**cls.released, **changes})


class Strength(Checked):
    """A method that can be switched off, and that may have values for single models.

    neutral: the fields, with their values, at which it is plain decoding. faint: changes to these that let all of its
    arithmetic run and move logits by less than rounding does; None for a method that has no such settings. by_model: a
    pattern of a model's name -> the fields that the paper has for it.
    """

    neutral: ClassVar[Mapping[str, Any] | None] = None
    faint: ClassVar[Mapping[str, Any] | None] = None
    by_model: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @property
    def is_neutral(self) -> bool:
        """Whether it is plain decoding: then it declares nothing, and costs nothing."""
        return self.neutral is not None and not self.on(*self.neutral)

    def on(self, *fields: str) -> bool:
        """Whether one of these fields is off its neutral value; a field without one always is."""
        neutral = self.neutral or {}
        return any(field not in neutral or getattr(self, field) != neutral[field] for field in fields)

    def for_model(self, model: str, keep: Collection[str] = ()) -> Self:
        """This method with its paper's values for that model, by name, in fields that have their defaults and are not
        in `keep`."""
        return for_model(self, model, keep)


class Decoder(Strength):
    """A paper's way to decode: declares edits for one batch of prompts.

    What other decoders need to know of it (`compatibility`) is data too. Fields that switch on, off their neutral
    values: inside: edits of attention, heads or states. steers: every layer by what the image adds. mixes: logits of
    the early blocks of `window`. early: logits of earlier layers, which are compared with the last. ahead: attention
    of candidates that are not chosen yet; only one of them is chosen. one_image: a view that compares one image with
    its prompt. And without a switch: against: what the logits are weighed against (see `decoders.contrast`).
    difference: what is left is no distribution but a difference of two. raises: the logits of earlier layers are added.
    starts_over: its edits may raise `Again`. follows_run: it counts from step to step, and cannot start over.
    """

    registry = DECODERS
    inside: ClassVar[tuple[str, ...]] = ()
    steers: ClassVar[tuple[str, ...]] = ()
    mixes: ClassVar[tuple[str, ...]] = ()
    early: ClassVar[tuple[str, ...]] = ()
    ahead: ClassVar[tuple[str, ...]] = ()
    one_image: ClassVar[tuple[str, ...]] = ()
    against: ClassVar[str | None] = None
    difference: ClassVar[bool] = False
    raises: ClassVar[bool] = False
    follows_run: ClassVar[bool] = False

    @property
    def starts_over(self) -> bool:
        return False

    @property
    def stands_for(self) -> Any:
        """The decoder that counts in a pair: this one, or what it holds; None if it never acts."""
        return self

    @property
    def reference(self) -> str | None:
        """What its logits are weighed against at these settings; None without a contrast."""
        return None

    @property
    def cuts(self) -> bool:
        """Whether it rules tokens out by a share of the largest probability."""
        return bool(getattr(self, "beta", 0))

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        """Declare what happens where, in the order of the paper's algorithm. State lives in this call alone.

        A method at its neutral strength is left out before this is called.
        """
        raise NotImplementedError(f"{type(self).__name__} has no edits().")


class Detector(Checked):
    """A paper's way to tell hallucinated words: declares readings, and maps their record to a risk per token.

    judges_texts: whether the risk depends on the token itself, so that it can judge a text that the model did not
    write. What reads only the step before a token gives "book" and "giraffe" the same risk: it judges the model's own
    choice alone. text_threshold: the risk from which on a word of such a text stands out; None is a choice by rank.
    is_before: whether the risk is known before the first token, and then the same for all tokens of a text.
    """

    registry = DETECTORS
    judges_texts: ClassVar[bool] = False
    text_threshold: ClassVar[float | None] = None
    is_before: ClassVar[bool] = False

    def readings(self, lvlm: Layout, inputs: Inputs) -> Iterator[Branch | Reading]:
        """Declare what is read. Nothing by default: the record has the tokens and their distribution in any case."""
        yield from ()

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        """Risk of every token; higher means more likely hallucinated. It depends on the record alone."""
        raise NotImplementedError(f"{type(self).__name__} has no score().")
