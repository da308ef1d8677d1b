"""`veridical check` on a tiny folder of every family, and on models that are broken on purpose."""

import pytest
import torch
from PIL import Image

import veridical
from veridical.datasets.world import scene
from veridical.flows.checkup.run import check
from veridical.pipelines.checkup import case as checkup
from veridical.pipelines.checkup import engine, layout

from .models.tiny_families import FAMILIES
from .models.tiny_processors import MISSING, processor
from .setting import setting

SCENE = scene("test", 1).image.resize((60, 40), Image.Resampling.BILINEAR)
ENOUGH = ["vista", "pai"]  # states, readings, scores, a branch; every method on every family: test_methods


def folder(name, path):
    """A tiny model and its processor, as a user has them."""
    if name in MISSING:
        pytest.skip(MISSING[name])
    setting(name).model.save_pretrained(path)
    processor(name).save_pretrained(path)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tiny_folder_of_every_family_passes(name, tmp_path):
    lvlm = veridical.load(folder(name, tmp_path))
    report = check(lvlm, SCENE, ENOUGH, ["lookback_lens"], quick=True)
    assert [one for one in report["findings"] if not one["holds"]] == []
    assert report["holds"]
    assert not report["not_checked"]
    assert report["model"]["model_type"] == name
    assert report["findings"][0]["error"] >= 4, "image positions"


# ---------------------------------------------------------------------- broken on purpose


class OtherNorm(veridical.LVLM):
    """Its final norm is left out."""

    def _check_layout(self):
        pass

    def unembed(self, hidden):
        return self.head(hidden)


class OtherMask(veridical.LVLM):
    """Its image positions are all too far to the right by one."""

    def image_mask(self, ids):
        return super().image_mask(ids).roll(1, -1)


def case(built=veridical.LVLM, name="llava", **changes):
    model = FAMILIES[name].build()
    return checkup.Case(built(model, processor(name), name=name, **changes), SCENE, 3)


def failed(found):
    return {finding.name for finding in found if not finding.holds}


def test_a_wrong_final_norm_does_not_hold():
    assert layout.unembed(case()).holds
    assert not layout.unembed(case(OtherNorm)).holds


def test_a_wrong_image_mask_does_not_hold():
    assert failed(layout.image_mask(case())) == set()
    wrong = failed(layout.image_mask(case(OtherMask)))
    assert {"they are where the model puts the image", "other pixels change nothing elsewhere"} <= wrong


def test_a_model_that_does_not_see_its_image_does_not_hold():
    without_image = case()
    for weight in without_image.lvlm.model.model.multi_modal_projector.parameters():
        weight.data.zero_()
    wrong = failed(layout.image_mask(without_image))
    assert {"other pixels change image positions", "other pixels change the logits"} <= wrong


def test_an_edit_that_does_not_act_does_not_hold(monkeypatch):
    """As with a layer that does not ask transformers' attention interface which function to take."""
    from veridical.pipelines.engine import attention

    def deaf(call, out, edits, plan):
        return call.attend()

    assert failed(engine.edits(case())) == set()
    monkeypatch.setattr(attention, "_edited", deaf)
    assert failed(engine.edits(case())) == {"an edit of scores acts", "an edit of probabilities acts"}


def test_readings_of_other_attention_do_not_hold(monkeypatch):
    from veridical.pipelines.engine.call import AttentionCall

    assert layout.readings(case()).holds
    right = AttentionCall.scores
    monkeypatch.setattr(AttentionCall, "scores", lambda self, queries=slice(None): 0.9 * right(self, queries))
    assert not layout.readings(case()).holds


def test_a_batch_that_sees_its_padding_does_not_hold(monkeypatch):
    broken = case()
    assert engine.batch(broken).holds
    inputs = broken.inputs
    monkeypatch.setitem(inputs, "attention_mask", torch.ones_like(inputs["attention_mask"]))
    assert not engine.batch(broken).holds


def test_a_decoder_that_is_not_neutral_does_not_hold():
    assert engine.neutral(case(), "vcd", ["vcd:alpha=0,beta=0"]).holds
    assert not engine.neutral(case(), "vcd", ["vcd:alpha=0,beta=0", "vcd:alpha=0.01,beta=0"]).holds


def test_eager_attention_is_switched_back_after_an_exception():
    lvlm = case().lvlm
    implementations = lambda: [layer.self_attn.config._attn_implementation for layer in lvlm.layers]
    seen = []

    def fail():
        with layout.eager(lvlm):
            seen.extend(implementations())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert set(seen) == {"eager"}
    assert set(implementations()) == {"sdpa"}


def test_an_exception_in_a_check_is_a_finding_with_its_message(monkeypatch):
    def broken(one):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(layout, "readings", broken)
    report = check(case().lvlm, SCENE, [], [], quick=True)
    wrong = [one for one in report["findings"] if not one["holds"]]
    assert [(one["name"], one["why"]) for one in wrong] == [
        ("readings = eager attentions", "ZeroDivisionError: nothing to divide by")
    ]
    assert not report["holds"]


def test_a_refused_method_is_named_with_its_reason():
    report = check(case(name="qwen2_vl").lvlm, SCENE, ["imbalanced"], [], quick=True)
    assert report["holds"]
    assert "CLIP" in report["not_checked"]["imbalanced"]
