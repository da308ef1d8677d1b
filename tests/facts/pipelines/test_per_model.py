"""Values that papers give for one model: which, who gets them, and who does not."""

import logging

import pytest

from veridical.decoders.avc import AVC
from veridical.decoders.var import VAR
from veridical.pipelines import per_model
from veridical.pipelines.chain import make_chain, type_of
from veridical.pipelines.registry import DECODERS, PROCEDURES

BLIP = "Salesforce/instructblip-vicuna-7b"


@pytest.mark.parametrize(
    ("decoder", "model", "found"),
    [
        ("avc", BLIP, {"alpha": 3.0}),  # AvisC, Sec. 4.1
        ("avc", "llava-hf/llava-1.5-7b-hf", {}),
        ("var", "llava-hf/llava-1.5-7b-hf", {"sink_dims": (1415, 2533)}),  # VAR, paper and code
        ("var", "liuhaotian/llava-v1.5-13b", {"sink_dims": (2100, 4743)}),
        ("var", "Qwen/Qwen2-VL-7B-Instruct", {"sink_dims": (458, 2570)}),
        ("var", "/models/InternVL2-8B", {"sink_dims": (3584,)}),
        ("var", "Qwen/Qwen2-VL-2B-Instruct", {}),
        ("vhr", BLIP, {"layers": tuple(range(14, 32))}),
        ("vista", "Vision-CAIR/MiniGPT-4", {"strength": 0.1}),
        ("vsv", "shikra-7b", {"strength": 0.12}),
        ("vcd", BLIP, {}),
        ("vicrop", "Qwen/Qwen2.5-VL-3B-Instruct", {"layer": 22}),
        ("vicrop", "Qwen/Qwen2.5-VL-7B-Instruct", {}),
    ],
)
def test_values_of_papers_are_found_by_the_models_name(decoder, model, found):
    assert per_model.values_for(type_of(decoder), model) == found


def test_values_are_of_fields_that_exist_and_that_the_defaults_do_not_have():
    given = [name for name in (*DECODERS.names, *PROCEDURES.names) if type_of(name).by_model]
    assert {"avc", "var", "vhr", "vista", "vsv", "vicrop"} <= set(given)
    for name in given:
        for pattern, fields in type_of(name).by_model.items():
            assert pattern == pattern.lower(), "names are compared in small letters"
            changed = type_of(name)()
            for field, value in fields.items():
                assert getattr(changed, field) != value, f"{name} has {field}={value!r} on every model"


def test_a_name_takes_them_and_what_was_given_stays():
    method = make_chain(["avc", "avc:alpha=2.5", "avc:beta=0.2", AVC()], BLIP)
    assert method == [AVC(alpha=3.0), AVC(alpha=2.5), AVC(alpha=3.0, beta=0.2), AVC()]


def test_another_model_leaves_everything_as_it_is():
    assert make_chain(["avc", "var"], "HuggingFaceTB/SmolVLM-256M-Instruct") == [AVC(), VAR()]


def test_what_was_taken_is_in_the_log(caplog):
    per_model._log.cache_clear()
    with caplog.at_level(logging.INFO):
        make_chain(["avc"], BLIP)
    assert caplog.messages == [f"AVC on {BLIP}: alpha=3.0, its paper's for this model"]


def test_equal_decoders_are_equal_for_every_model_however_they_came_about():
    """No hidden mark says whether an instance was written as text: `for_model` gives equal results for equal ones."""
    one, other = make_chain(["avc"])[0], AVC()
    assert one == other
    assert vars(one) == vars(other)
    assert per_model.for_model(one, BLIP) == per_model.for_model(other, BLIP) == AVC(alpha=3.0)


def test_a_field_that_was_changed_stays_for_every_model():
    assert per_model.for_model(VAR(sink_dims=(1, 2)), "llava-hf/llava-1.5-7b-hf") == VAR(sink_dims=(1, 2))


def test_a_chain_of_text_for_a_model_says_in_its_repr_what_it_decodes_with():
    assert "alpha=3.0" in repr(make_chain("avc", BLIP)[0])
    assert "alpha=2.5" in repr(make_chain("avc")[0])
