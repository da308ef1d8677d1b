"""What every decoder and detector must be, as classes of tests that pytest collects by subclassing them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..pipelines.generate import generate, score
from ..pipelines.lvlm import LVLM
from ..pipelines.registry import DECODERS, DETECTORS
from .leftovers import assert_unchanged, snapshot
from .tiny import batch, prompt, tiny_llava

STEPS = 4
EXACT = 1e-6  # of the largest logit: the same arithmetic, at most other matrix shapes
FAINT = 1e-4  # of the largest logit: a step beside neutral, amplified through eight layers
CLOSE = 1e-5  # of the largest logit: other paddings through eight layers


@dataclass(frozen=True)
class Case:
    """A model, prompts of different lengths alone, and all of them as one left-padded batch."""

    lvlm: LVLM
    prompts: Sequence[dict[str, Tensor]]
    inputs: dict[str, Tensor]

    def logits(self, decoders: Sequence[Any] = (), inputs: Any = None) -> Tensor:
        """(batch, step, vocab) logits that greedy decoding chooses from."""
        generation = generate(
            self.lvlm, self.inputs if inputs is None else inputs, decoders, return_logits=True,
            max_new_tokens=STEPS, do_sample=False,
        )  # fmt: skip
        assert generation.logits is not None
        return generation.logits


@cache
def tiny_case() -> Case:
    """A random LLaVA of eight layers with grouped queries, and three prompts."""
    model = tiny_llava(8, 2)
    prompts = [prompt(model, before, after, seed) for before, after, seed in ((3, 5, 1), (6, 7, 2), (1, 2, 3))]
    return Case(LVLM(model), prompts, batch(prompts))


def scale(logits: Tensor) -> float:
    """The largest finite logit, at least 1: float32 rounding of logits is in proportion to it."""
    return max(1.0, float(logits[logits.isfinite()].abs().max()))


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference of finite logits; infinite where one cut a token that the other kept."""
    assert a.shape == b.shape
    if a.isnan().any() or b.isnan().any() or not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    finite = a.isfinite()
    return float((a[finite].double() - b[finite].double()).abs().max())


class DecoderContract:
    """Tests of one decoder. decoder: an instance whose effect shows on a tiny model. case: the model it runs on."""

    decoder: ClassVar[Any]

    @property
    def case(self) -> Case:
        return tiny_case()

    def test_neutral_strength_is_plain_decoding(self) -> None:
        cls = type(self.decoder)
        assert cls.neutral is not None, f"{cls.__name__} lacks `neutral`: the fields at which it is plain decoding"
        neutral = cls(**cls.neutral)
        assert neutral.is_neutral
        plain = self.case.logits()
        assert difference(self.case.logits([neutral]), plain) <= EXACT * scale(plain)

    def test_next_to_neutral_strength_it_is_next_to_plain_decoding(self) -> None:
        """The engine leaves a neutral decoder out; with `faint` settings, beside neutral ones, its arithmetic runs."""
        cls = type(self.decoder)
        if cls.faint is not None:
            faint, plain = cls(**{**(cls.neutral or {}), **cls.faint}), self.case.logits()
            assert not faint.is_neutral
            assert difference(self.case.logits([faint]), plain) <= FAINT * scale(plain)

    def test_the_decoder_acts(self) -> None:
        plain, moved = self.case.logits(), self.case.logits([self.decoder])
        finite = moved.isfinite()
        assert finite.any(-1).all(), "a step has no token left to choose"
        assert float((moved - plain)[finite].abs().max()) > 0

    def test_a_batch_is_its_rows_alone(self) -> None:
        together = self.case.logits([self.decoder])
        for row, one in enumerate(self.case.prompts):
            assert difference(self.case.logits([self.decoder], one)[0], together[row]) <= CLOSE * scale(together)

    def test_nothing_is_left_behind(self) -> None:
        plain, before = self.case.logits(), snapshot(self.case.lvlm)
        self.case.logits([self.decoder])
        assert_unchanged(before, snapshot(self.case.lvlm))
        assert torch.equal(self.case.logits(), plain)

    def test_equal_decoders_decode_alike(self) -> None:
        """A copy, and one made of the fields alone: a hidden attribute would make them differ."""
        first = self.case.logits([self.decoder])
        fields = {field.name: getattr(self.decoder, field.name) for field in dataclasses.fields(self.decoder)}
        for other in (copy.copy(self.decoder), type(self.decoder)(**fields)):
            assert other == self.decoder
            assert torch.equal(self.case.logits([other]), first)

    def test_it_is_a_value(self) -> None:
        """Frozen and hashable, and its repr, which results record, names every field."""
        check_value(self.decoder, DECODERS)


class DetectorContract:
    """Tests of one detector. detector: an instance. case: the model it runs on."""

    detector: ClassVar[Any]

    @property
    def case(self) -> Case:
        return tiny_case()

    def _while_decoding(self, inputs: Any) -> tuple[Tensor, Tensor]:
        generation = generate(self.case.lvlm, inputs, [], [self.detector], max_new_tokens=STEPS, do_sample=False)
        (risk,) = generation.risk.values()
        return generation.ids, risk

    def test_a_risk_is_one_number_per_token(self) -> None:
        ids, risk = self._while_decoding(self.case.inputs)
        assert risk.shape == ids.shape
        assert risk.isfinite().all()

    def test_a_finished_text_has_the_risks_that_were_read_while_it_was_decoded(self) -> None:
        ids, risk = self._while_decoding(self.case.inputs)
        (forced,) = score(self.case.lvlm, self.case.inputs, ids, [self.detector]).values()
        assert difference(forced, risk) <= CLOSE * scale(risk)

    def test_a_batch_is_its_rows_alone(self) -> None:
        ids, risk = self._while_decoding(self.case.inputs)
        for row, one in enumerate(self.case.prompts):
            (alone,) = score(self.case.lvlm, one, ids[row : row + 1], [self.detector]).values()
            assert difference(alone[0], risk[row]) <= CLOSE * scale(risk)

    def test_nothing_is_left_behind(self) -> None:
        plain, before = self.case.logits(), snapshot(self.case.lvlm)
        self._while_decoding(self.case.inputs)
        assert_unchanged(before, snapshot(self.case.lvlm))
        assert torch.equal(self.case.logits(), plain)

    def test_equal_detectors_give_equal_risks(self) -> None:
        fields = {field.name: getattr(self.detector, field.name) for field in dataclasses.fields(self.detector)}
        other, ids = type(self.detector)(**fields), self._while_decoding(self.case.inputs)[0]
        (one,), (two,) = (score(self.case.lvlm, self.case.inputs, ids, [d]).values() for d in (self.detector, other))
        assert torch.equal(one, two)

    def test_it_is_a_value(self) -> None:
        """Frozen and hashable, and its repr, which results record, names every field."""
        check_value(self.detector, DETECTORS)


def check_value(method: Any, registry: Any) -> None:
    """Raise AssertionError unless a method is a frozen dataclass with defaults that says what it is."""
    assert hash(method) == hash(dataclasses.replace(method))
    assert registry.make(method) is method
    assert type(method).__doc__, f"{type(method).__name__} has no docstring"
    for field in dataclasses.fields(method):
        assert field.default is not dataclasses.MISSING, f"{field.name} has no default"
        assert f"{field.name}=" in repr(method), f"{field.name} is not in the repr, which results record"
        try:
            setattr(method, field.name, getattr(method, field.name))
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(f"{type(method).__name__} is not frozen: results could not say what ran")
