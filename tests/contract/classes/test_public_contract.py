"""The contract that `veridical.testing` gives to other packages: methods of ours pass it, and each fault fails it."""

from dataclasses import dataclass

import pytest

from veridical.decoders import SLA, VCD
from veridical.detectors import Entropy
from veridical.pipelines.engine.declarations import LogitsEdit
from veridical.pipelines.method import Decoder, Detector, number
from veridical.testing import DecoderContract, DetectorContract


class TestVCD(DecoderContract):
    decoder = VCD(beta=0)


class TestSLA(DecoderContract):
    decoder = SLA()


class TestEntropy(DetectorContract):
    detector = Entropy()


@dataclass(frozen=True)
class Faulty(Decoder):
    """A decoder that goes wrong as a test wants it to."""

    weight: float = number(1.0, "of the edit")
    neutral = {"weight": 0}
    hidden = 0.0

    def edits(self, lvlm, inputs):
        yield LogitsEdit(self.edit)

    def edit(self, logits, step):
        return logits + self.weight * logits.flip(1) + self.hidden * logits.roll(1, 1)


class Unwell(DecoderContract):
    """Not collected by its name; each test below calls what should fail."""

    def __init__(self, decoder):
        self.decoder = decoder


def test_a_hidden_attribute_is_found():
    marked = Faulty()
    object.__setattr__(marked, "hidden", 0.5)
    with pytest.raises(AssertionError):
        Unwell(marked).test_equal_decoders_decode_alike()
    Unwell(Faulty()).test_equal_decoders_decode_alike()


def test_a_neutral_strength_that_is_not_neutral_is_found():
    @dataclass(frozen=True)
    class Wrong(Faulty):
        neutral = {"weight": 0.5}
        faint = {"weight": 0.5000001}

    with pytest.raises(AssertionError):
        Unwell(Wrong()).test_next_to_neutral_strength_it_is_next_to_plain_decoding()

    @dataclass(frozen=True)
    class Nameless(Faulty):
        neutral = None

    with pytest.raises(AssertionError, match="Nameless lacks `neutral`"):
        Unwell(Nameless()).test_neutral_strength_is_plain_decoding()


def test_a_decoder_whose_rows_depend_on_each_other_is_found():
    @dataclass(frozen=True)
    class Mixing(Faulty):
        def edit(self, logits, step):
            return logits + self.weight * logits.mean(0, keepdim=True)

    with pytest.raises(AssertionError):
        Unwell(Mixing()).test_a_batch_is_its_rows_alone()


def test_what_is_left_behind_is_found():
    @dataclass(frozen=True)
    class Leaving(Faulty):
        def edits(self, lvlm, inputs):
            lvlm.model.left = True
            yield from super().edits(lvlm, inputs)

    contract = Unwell(Leaving())
    try:
        with pytest.raises(AssertionError, match="attributes"):
            contract.test_nothing_is_left_behind()
    finally:
        del contract.case.lvlm.model.left


def test_a_detector_that_can_be_changed_afterwards_is_found():
    @dataclass(unsafe_hash=True)
    class Loose(Detector):
        scale: float = 1.0

    class Looser(DetectorContract):
        detector = Loose()

    with pytest.raises(AssertionError, match="Loose is not frozen"):
        Looser().test_it_is_a_value()
