"""What inputs may hold beside tokens and pixels: positions, masks, and seeds of every kind of whole number."""

import numpy as np
import pytest
import torch

import veridical
from veridical.decoders.rbd import RBD
from veridical.decoders.vcd import VCD
from veridical.pipelines.checks import seeds_of
from veridical.pipelines.results import words_of

from ...parity.tiny import PAD
from ..setting import STEPS, difference

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
METHODS = ["vcd", "icd:prefix_ids=(5,6,7)", "m3id", "vsv", "vhr", "pai", "avc", "var:tau=4.2,sink_dims=(5,40)"]


# ---------------------------------------------------------------------- the mask decides what is padding


def prompt_with_the_pad_id(tiny):
    """One whose second and last tokens have the id that elsewhere fills rows up."""
    one = {name: value.clone() for name, value in tiny.prompts[0].items()}
    one["input_ids"][0, [1, -2]] = PAD
    assert bool((one["attention_mask"] == 1).all())
    return one


@pytest.mark.parametrize("method", METHODS)
def test_the_pad_id_is_a_token_like_others_where_the_mask_says_so(tiny, method, monkeypatch):
    """The same run with another pad id, which the prompt does not hold."""
    one = prompt_with_the_pad_id(tiny)
    found = tiny.logits([method], one)
    monkeypatch.setattr(tiny.model.generation_config, "pad_token_id", 2)
    expected = tiny.logits([method], one)
    assert difference(found, expected) == 0


@pytest.mark.parametrize("method", [[], *METHODS])
def test_through_mitigate_too(tiny, method):
    """transformers hands no mask of ones on."""
    one = prompt_with_the_pad_id(tiny)
    given = [method] if method else []
    out = tiny.model.generate(**one, custom_generate=veridical.mitigate(given), max_new_tokens=STEPS, do_sample=False)
    assert torch.equal(out[:, one["input_ids"].shape[1] :], tiny.tokens(given, one))


def test_without_a_mask_transformers_takes_the_pad_id_for_padding_and_so_does_mitigate(tiny):
    batch = {name: value for name, value in tiny.inputs.items() if name != "attention_mask"}
    out = tiny.model.generate(**batch, custom_generate=veridical.mitigate(["vcd"]), max_new_tokens=STEPS)
    assert torch.equal(out[:, batch["input_ids"].shape[1] :], tiny.tokens(["vcd"]))


@pytest.mark.parametrize("detector", ["lookback_lens:weights=None,context='prompt'", "entropy", "vhd", "logit_lens"])
def test_scoring_takes_the_pad_id_of_prompt_and_text_for_tokens(tiny, detector, monkeypatch):
    one, name = prompt_with_the_pad_id(tiny), detector.split(":")[0]
    ids = torch.tensor([[9, PAD, 11, 12]])
    found = veridical.score(tiny.lvlm, one, ids, [detector])[name]
    monkeypatch.setattr(tiny.model.generation_config, "pad_token_id", 2)
    assert found.isfinite().all()
    assert torch.equal(found, veridical.score(tiny.lvlm, one, ids, [detector])[name])


def test_the_pad_id_inside_a_text_is_one_of_its_tokens(tiny, monkeypatch):
    """An answer has as many tokens as risks; padding behind the text is left away."""
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", 2)
    assert words_of(tiny.lvlm, [9, PAD, 11, 2, PAD, PAD]) == [9, PAD, 11]
    assert words_of(tiny.lvlm, [9, PAD, 11, PAD]) == [9, PAD, 11]
    assert words_of(tiny.lvlm, [PAD, PAD]) == []


# ---------------------------------------------------------------------- positions are counted, never given


def counted(inputs):
    return (inputs["attention_mask"].cumsum(1) - 1).clamp(min=1)  # positions of padding do not matter


WAYS = {
    "generate": lambda tiny, inputs: tiny.generate(["icd:prefix_ids=(5,6,7)"], inputs).ids,
    "score": lambda tiny, inputs: veridical.score(tiny.lvlm, inputs, torch.full((3, 2), 9), ["entropy"])["entropy"],
    "mitigate": lambda tiny, inputs: tiny.model.generate(
        **inputs, custom_generate=veridical.mitigate(["icd:prefix_ids=(5,6,7)"]), max_new_tokens=STEPS, num_beams=2
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_position_ids_other_than_those_of_the_mask_are_refused(tiny, way):
    inputs = {**tiny.inputs, "position_ids": counted(tiny.inputs) + 3}
    with pytest.raises(ValueError, match=r"position_ids \(3, \d+\) are other than .* leave position_ids out"):
        WAYS[way](tiny, inputs)


@pytest.mark.parametrize("way", ["generate", "score"])
def test_position_ids_of_another_shape_are_refused(tiny, way):
    inputs = {**tiny.inputs, "position_ids": counted(tiny.inputs)[:, :-1]}
    with pytest.raises(ValueError, match=r"position_ids .* leave position_ids out"):
        WAYS[way](tiny, inputs)


@pytest.mark.parametrize("way", WAYS)
def test_position_ids_that_are_those_of_the_mask_change_nothing(tiny, way):
    found = WAYS[way](tiny, {**tiny.inputs, "position_ids": tiny.inputs["attention_mask"].cumsum(1) - 1})
    assert torch.equal(found, WAYS[way](tiny, tiny.inputs))


# ---------------------------------------------------------------------- seeds

SAMPLING = {"do_sample": True, "temperature": 0.9, "top_k": 20}
SAME = [np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), torch.tensor(7, dtype=torch.int32)]
LISTS = [(7, 8, 9), np.arange(7, 10), torch.arange(7, 10), [np.int32(7), torch.tensor(8), 9]]
NO_SEEDS = [True, np.bool_(True), torch.tensor(True), 7.0, np.float64(7), torch.tensor(7.0), "7", None, [7, 8.0, 9],
            [7, True, 9], torch.tensor([1.0, 2.0, 3.0])]  # fmt: skip


@pytest.mark.parametrize("seed", SAME + LISTS, ids=repr)
def test_whole_numbers_of_numpy_and_torch_are_seeds(tiny, seed):
    expected = tiny.generate(["vcd"], seed=7, **SAMPLING).ids
    assert torch.equal(tiny.generate(["vcd"], seed=seed, **SAMPLING).ids, expected)
    out = tiny.model.generate(
        **tiny.inputs, custom_generate=veridical.mitigate(["vcd"], seed=seed), max_new_tokens=STEPS, **SAMPLING
    )
    assert torch.equal(out[:, tiny.inputs["input_ids"].shape[1] :], expected)
    assert seeds_of(seed, 3, "image") == [7, 8, 9]
    assert {type(one) for one in seeds_of(seed, 3, "image")} == {int}


@pytest.mark.parametrize("seed", NO_SEEDS, ids=repr)
def test_what_is_no_whole_number_is_no_seed(tiny, seed):
    with pytest.raises(ValueError, match="is no whole number and no list of whole numbers"):
        seeds_of(seed, 3, "image")
    if seed is not None:  # None is a seed that is drawn
        with pytest.raises(ValueError, match="is no whole number and no list of whole numbers"):
            tiny.generate(["vcd"], seed=seed, **SAMPLING)


@pytest.mark.parametrize("cls", [VCD, RBD])
def test_a_decoders_seed_is_kept_as_a_plain_number(cls):
    for seed in SAME:
        one = cls(seed=seed)
        assert one == cls(seed=7)
        assert repr(one) == repr(cls(seed=7))
    for seed in (True, np.bool_(True), torch.tensor(True), 7.0, "7", None):
        with pytest.raises(ValueError, match=r"seed=.* is no whole number \(of the noise\)"):
            cls(seed=seed)


def test_answers_take_seeds_of_numpy_and_torch():
    from veridical.datasets.world import scene

    lvlm, images = veridical.load("embedded", device="cpu"), [scene("test", index).image for index in range(2)]
    runs = [
        lvlm.caption(images, seed=seed, max_new_tokens=6, **SAMPLING)
        for seed in (7, np.int64(7), torch.tensor(7), np.array([7, 8]), torch.tensor([7, 8]))
    ]
    assert len({tuple(answer.text for answer in answers) for answers in runs}) == 1
    assert [answer.settings["generation"]["seed"] for answer in runs[-1]] == [7, 8]
    assert all(type(answer.settings["generation"]["seed"]) is int for answers in runs for answer in answers)
