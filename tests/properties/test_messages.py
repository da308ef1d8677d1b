"""Errors say what was asked, what was found, what is possible, and what to do."""

import math
import re

import pytest
import torch

import veridical
from veridical.decoders.var import VAR
from veridical.decoders.vcd import VCD
from veridical.decoders.vhr import VHR
from veridical.decoders.vista import SLA, VSV
from veridical.pipelines.checks import check_at_least, check_choice, check_layers, check_range
from veridical.pipelines.registry import DECODERS, DETECTORS, UnknownName


def exactly(text):
    return f"^{re.escape(text)}$"


# ---------------------------------------------------------------------- checks


def test_a_value_outside_a_range_says_the_range_and_what_it_means():
    with pytest.raises(ValueError, match=exactly("gamma=1.7 is outside 0 to 1 (share of the early logits).")):
        check_range("gamma", 1.7, 0, 1, "share of the early logits")


def test_a_value_that_is_too_small_says_how_small_it_may_be():
    with pytest.raises(ValueError, match=exactly("alpha=-1 is below 0 (strength).")):
        check_at_least("alpha", -1, 0, "strength")


def test_a_choice_that_does_not_exist_says_which_do():
    with pytest.raises(ValueError, match=exactly("mode='code' is none of 'paper', 'official' (whose formula).")):
        check_choice("mode", "code", ("paper", "official"), "whose formula")


def test_layers_that_do_not_exist_are_named_with_those_that_do():
    message = "VHR asks for layers [-1, 8], but this model's layers are 0 to 7."
    with pytest.raises(ValueError, match=exactly(message)):
        check_layers([0, -1, 8], 8, "VHR")
    assert check_layers(iter([2, 1]), 8, "VHR") == (2, 1)


def test_limits_belong_to_the_range():
    check_range("x", 0, 0, 1, "")
    check_range("x", 1, 0, 1, "")
    check_at_least("x", 0, 0, "")


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_no_number_is_in_no_range(value):
    with pytest.raises(ValueError, match="is outside 0 to 1"):
        check_range("x", value, 0, 1, "")
    with pytest.raises(ValueError, match="is below 0"):
        check_at_least("x", value, 0, "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: VCD(alpha=-1), lambda: VCD(beta=2), lambda: VCD(beta=-0.1), lambda: VCD(noise_step=1000),
        lambda: VCD(alpha=math.nan), lambda: VAR(move=1.5), lambda: VAR(min_nonsink=-1), lambda: VAR(min_image=-1),
        lambda: VAR(skip_first=-1), lambda: VHR(alpha=0), lambda: VSV(strength=-1), lambda: VSV(mode="x"),
        lambda: SLA(gamma=2),
    ],
)  # fmt: skip
def test_decoders_refuse_what_is_out_of_range_when_they_are_made(make):
    with pytest.raises(ValueError, match=r"=.* (is outside|is below|is none of) "):
        make()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("vcd:alpha=strong", "alpha"), ("vcd:alpha=None", "alpha"), ("vcd:noise_step=1.5", "noise_step"),
        ("vcd:alpha=1e400", "alpha"), ("vhr:layers=5", "layers"), ("vhr:layers=last", "layers"),
        ("vhr:layers=[1.5]", "layers"), ("var:sink_dims=[5,40", "sink_dims"), ("var:sink_dims=5", "sink_dims"),
        ("var:sink_dims=[]", "sink_dims"), ("var:tau=None", "tau"), ("var:tau=nan", "tau"),
        ("sla:window=wide", "window"), ("sla:window=[1,2,3]", "window"), ("sla:window=2.5", "window"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_when_it_is_given_and_names_its_field(spec, field):
    """Not somewhere inside the run, by whatever Python says there; and not as an internal of Python's."""
    with pytest.raises(ValueError, match=field) as caught:
        DECODERS.make(spec)
    assert "not supported between" not in str(caught.value)
    assert "not iterable" not in str(caught.value)


def test_a_layer_or_a_dimension_that_the_model_lacks_is_named(tiny):
    with pytest.raises(ValueError, match=r"VHR asks for layers \[8\], but this model's layers are 0 to 7"):
        tiny.generate([VHR(layers=(1, 8))])
    with pytest.raises(ValueError, match=r"sink_dims=\[64, -1\] are outside 0 to 63"):
        tiny.generate([VAR(sink_dims=(64, 3, -1))])
    with pytest.raises(ValueError, match="window=8 blocks below the last; this model has 8 layers: 1 to 7"):
        tiny.generate([SLA(window=8)])
    with pytest.raises(ValueError, match=r"ImageAttention asks for layers \[99\]"):
        tiny.generate([], detectors=["image_attention:layers=(2,99)"])


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "near"), [("vdc", "vcd"), ("VCD", "vcd"), ("vistta", "vista"), ("Greedy", "greedy")]
)
def test_an_unknown_name_gets_a_near_one_and_all_known_ones(name, near):
    with pytest.raises(UnknownName) as caught:
        DECODERS.make(name)
    message = str(caught.value)
    assert message == f'no decoder "{name}". Did you mean "{near}"? Known: {", ".join(sorted(DECODERS.names))}.'
    assert isinstance(caught.value, KeyError)


def test_a_name_like_no_other_gets_all_known_ones_and_no_guess():
    with pytest.raises(UnknownName, match=r'^no decoder "qqqq"\. Known: ') as caught:
        DECODERS.make("qqqq")
    assert "Did you mean" not in str(caught.value)


def test_detectors_are_found_the_same_way():
    with pytest.raises(UnknownName, match=r'no detector "lookback_lense"\. Did you mean "lookback_lens"\?'):
        DETECTORS.make("lookback_lense")


def test_an_unknown_name_is_refused_before_anything_runs(tiny):
    with pytest.raises(UnknownName):
        tiny.generate(["vdc"])
    with pytest.raises(UnknownName):
        tiny.generate([], detectors=["entropie"])
    with pytest.raises(UnknownName):
        veridical.mitigate(["vdc"])


@pytest.mark.parametrize("thing", [3, object(), None, ["vcd"], {"vcd": 1}], ids=lambda t: type(t).__name__)
def test_what_is_no_decoder_is_refused_with_what_one_is(tiny, thing):
    with pytest.raises((TypeError, ValueError), match=r"(?i)decoder"):
        tiny.generate([thing])


def test_a_detector_among_the_decoders_is_refused_with_where_it_belongs(tiny):
    from veridical.detectors.confidence import Entropy

    with pytest.raises((TypeError, ValueError), match=r"(?i)decoder"):
        tiny.generate([Entropy()])
    with pytest.raises((TypeError, ValueError), match=r"(?i)detector"):
        tiny.generate([], detectors=[VCD()])


# ---------------------------------------------------------------------- "name:field=value"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("vcd", VCD()),
        ("vcd:", VCD()),
        ("vcd:alpha=2", VCD(alpha=2)),
        (" vcd : alpha = 2.5 , beta = 0 ", VCD(alpha=2.5, beta=0)),
        ("vcd:alpha=1e-1,", VCD(alpha=0.1)),
        ("var:sink_dims=(5,40),tau=4.2", VAR(sink_dims=(5, 40), tau=4.2)),
        ("var:sink_dims=None", VAR()),
        ("var:skip_last=false,require_visual_sink=True", VAR(skip_last=False, require_visual_sink=True)),
        ("sla:window=(25,30)", SLA(window=(25, 30))),
        ("sla:window=(-7,-2),gamma=.5", SLA(gamma=0.5, window=(-7, -2))),
        ("vsv:mode=official", VSV(mode="official")),
        ("vsv:mode='official'", VSV(mode="official")),
    ],
)
def test_settings_are_read_from_text(spec, expected):
    assert DECODERS.make(spec) == expected


def test_brackets_keep_their_commas():
    assert list(DECODERS.make("vhr:layers=[1,2,3],alpha=3").layers) == [1, 2, 3]


def test_instances_classes_and_names_can_be_mixed():
    assert DECODERS.make_all([VCD, VSV(0.1), "sla"]) == [VCD(), VSV(0.1), SLA()]
    assert DECODERS.make_all("sla") == [SLA()]
    assert DECODERS.make_all(VCD(beta=0)) == [VCD(beta=0)]
    assert DECODERS.make_all(None) == DECODERS.make_all([]) == []
    assert DECODERS.make_all(name for name in ("vcd", "sla")) == [VCD(), SLA()]


def test_a_field_that_does_not_exist_is_named_with_those_that_do():
    message = "'vcd:alhpa=1': vcd has no field 'alhpa'; it has: alpha=1.0, beta=0.1, noise_step=500, seed=0"
    with pytest.raises(ValueError, match=exactly(message)):
        DECODERS.make("vcd:alhpa=1")


def test_a_setting_without_a_value_is_named():
    with pytest.raises(ValueError, match=r"'vcd:alpha': 'alpha' is not field=value; fields of vcd: alpha=1\.0"):
        DECODERS.make("vcd:alpha")


def test_a_decoder_without_fields_says_so():
    with pytest.raises(ValueError, match="greedy has no field 'x'; it has: none"):
        DECODERS.make("greedy:x=1")


def test_a_value_out_of_range_says_so_through_text_too():
    with pytest.raises(ValueError, match=r"beta=7 is outside 0 to 1 \(plausibility cut\)"):
        DECODERS.make("vcd:beta=7")


def test_a_setting_given_twice_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        DECODERS.make("vcd:alpha=1,alpha=2")


def test_text_is_never_run():
    with pytest.raises(ValueError, match="mode="):
        DECODERS.make("vsv:mode=__import__('os').getcwd()")


# ---------------------------------------------------------------------- inputs and combinations


def test_rows_padded_on_the_right_are_refused_with_what_to_set(tiny):
    inputs = {key: value.clone() for key, value in tiny.inputs.items()}
    inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    for call in (
        lambda: tiny.generate(["vsv"], inputs),
        lambda: tiny.generate([], inputs),
        lambda: veridical.score(tiny.lvlm, inputs, torch.tensor([[5]] * 3), ["entropy"]),
    ):
        with pytest.raises(ValueError, match=r"padded on the left: set processor\.tokenizer\.padding_side = 'left'"):
            call()


def test_left_padded_rows_without_a_mask_are_decoded_as_transformers_does(tiny):
    """It takes the mask from the pad tokens. Words for padding would be silently other logits."""
    inputs = {name: value for name, value in tiny.inputs.items() if name != "attention_mask"}
    theirs = tiny.model.generate(
        **inputs, max_new_tokens=2, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    found = tiny.logits([], inputs, max_new_tokens=2)
    torch.testing.assert_close(found, torch.stack(theirs.logits, 1), rtol=0, atol=1e-5)


def test_inputs_without_ids_say_what_was_found(tiny):
    with pytest.raises(ValueError, match="inputs need input_ids, as a processor returns them; found pixel_values"):
        tiny.generate([], {"pixel_values": tiny.inputs["pixel_values"]})
    with pytest.raises(ValueError, match="found nothing"):
        tiny.generate([], {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"return_logits": True, "num_beams": 3}, "return_logits=True with num_beams > 1"),
        ({"do_sample": True, "num_beams": 3}, "beam search with do_sample=True"),
        ({"do_sample": True, "num_return_sequences": 2}, "num_return_sequences=2 is not supported"),
        ({"do_sample": True, "seed": [1, 2]}, "2 seeds for 3 samples; give one number, or one for each sample"),
    ],
    ids=str,
)
def test_combinations_without_a_meaning_are_refused(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        tiny.generate(["vcd"], **options)


def test_combinations_are_refused_in_a_configuration_too(tiny):
    from transformers import GenerationConfig

    config = GenerationConfig(num_beams=3, do_sample=True, max_new_tokens=2)
    with pytest.raises(ValueError, match="beam search with do_sample=True"):
        veridical.generate(tiny.lvlm, tiny.inputs, ["vcd"], generation_config=config)


def test_a_method_on_pixels_says_so_where_there_are_none(tiny):
    text = tiny.lvlm.image_free(tiny.inputs)
    with pytest.raises(ValueError, match="pixel_values"):
        tiny.generate(["vcd"], text)


def test_a_model_without_a_processor_says_what_to_call_instead(tiny):
    with pytest.raises(ValueError, match=r"has no processor.*call veridical\.generate"):
        tiny.lvlm.caption("any.png")


def test_a_reading_or_a_branch_that_does_not_exist_says_which_do():
    from veridical.pipelines.engine.declarations import Step
    from veridical.pipelines.engine.record import Record

    with pytest.raises(KeyError, match="no reading 'x' in this pass; there are: a, b"):
        Step(readings={"b": {}, "a": {}}).latest("x")
    ids, empty = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1)
    with pytest.raises(KeyError, match="no reading 'x' in this record; there are: none"):
        Record(ids, empty.bool(), empty, empty, empty, ids[0])["x"]


def test_an_unknown_public_name_says_which_there_are():
    with pytest.raises(AttributeError, match=r"module 'veridical' has no attribute 'laod'; public: LVLM, .*load"):
        _ = veridical.laod
