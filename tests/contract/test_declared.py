"""What a decoder declares, before it reaches the model: neutral ones are left out, wrong shapes are named."""

from dataclasses import dataclass

import pytest
import torch

import veridical
from veridical.pipelines import compatibility
from veridical.pipelines.engine.declarations import Branch, HeadEdit, LogitsEdit
from veridical.pipelines.method import Decoder, number

from .setting import Declares


@dataclass(frozen=True)
class Untouchable(Decoder):
    """Raises as soon as something is declared."""

    weight: float = number(0.0, "of what never happens")
    neutral = {"weight": 0}

    def edits(self, lvlm, inputs):
        raise AssertionError("a neutral method was run")


def test_a_decoder_at_its_neutral_strength_is_left_out_before_it_does_anything(tiny):
    out = tiny.generate([Untouchable()], return_logits=True)
    assert torch.equal(out.logits, tiny.plain())
    assert not out.acted["Untouchable"].acted.any()
    with pytest.raises(AssertionError, match="a neutral method was run"):
        tiny.generate([Untouchable(weight=1)])


def test_an_effect_without_a_neutral_strength_always_counts():
    """A decoder of another package need not have any: pairs are judged all the same."""

    @dataclass(frozen=True)
    class Endless(Decoder):
        amount: float = 1.0
        inside = ("amount",)

    assert not Endless().is_neutral
    assert Endless().on("amount")
    compatibility.check([Endless(), veridical.decoders.VCD()])


def test_a_gate_on_a_neutral_decoder_changes_nothing(tiny):
    assert torch.equal(tiny.logits(["gate:decoder='vcd:alpha=0,beta=0',threshold='-inf'"]), tiny.plain())


@pytest.mark.parametrize(("edit", "message"), [
    (LogitsEdit(lambda logits, step: logits[:, :5]), r"LogitsEdit returned \(3, 5\) for a tensor of shape \(3, 128\)"),
    (LogitsEdit(lambda logits, step: None), "LogitsEdit returned NoneType for a tensor of shape"),
    (HeadEdit([2], lambda heads, call: heads.flatten(2)), "HeadEdit returned .* edit returns the shape that it"),
])  # fmt: skip
def test_an_edit_that_returns_another_shape_is_named_with_its_decoder(tiny, edit, message):
    with pytest.raises(ValueError, match=f"^Declares: its {message}"):
        tiny.generate([Declares([edit])])


def test_a_branch_with_another_number_of_rows_is_named_with_its_decoder(tiny):
    fewer = {name: value[:2] for name, value in tiny.inputs.items()}
    with pytest.raises(ValueError, match=r"^Declares: branch 'two' has 2 rows, the main inputs 3; a branch needs"):
        tiny.generate([Declares([Branch("two", fewer)])])


def test_what_is_no_declaration_is_named_with_its_decoder_and_with_those_that_are(tiny):
    with pytest.raises(TypeError, match=r"^Declares: edits\(\) gave 3, which is no declaration; possible: Att"):
        tiny.generate([Declares([3])])


def test_a_value_outside_its_range_is_named_with_its_decoder_and_field():
    with pytest.raises(ValueError, match=r"^vcd: alpha=-1 is below 0 \(strength of the contrast\)\.$"):
        veridical.decoders.VCD(alpha=-1)
    with pytest.raises(ValueError, match=r"^Untouchable: weight='much' is no number"):
        Untouchable(weight="much")


def test_decoders_may_come_from_a_generator_inside_transformers(tiny):
    run = lambda decoders: tiny.model.generate(
        **tiny.inputs, custom_generate=veridical.mitigate(decoders), max_new_tokens=3, do_sample=False
    )
    assert torch.equal(run(name for name in ("vsv", "sla")), run(["vsv", "sla"]))
