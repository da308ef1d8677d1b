"""ADHH's numbers, by hand: what is silenced, in which rows and heads, and how heads are scored."""

import pytest
import torch

import veridical
from veridical.datasets.world import scene
from veridical.decoders.adhh import ADHH, silence
from veridical.decoders.adhh_heads import Influence, Place, influences, places
from veridical.pipelines.engine.declarations import HeadEdit, Reading
from veridical.pipelines.engine.run import prefill
from veridical.pipelines.prefill import last_position
from veridical.testing.tiny import batch, prompt, tiny_llava

from ...contract.test_costs import counted

ROW = torch.tensor([0.25, 0.25, 0.25, 0.125, 0.125])
after = lambda start, keys=5: torch.arange(keys) >= start


def test_text_is_silenced_where_its_mass_is_the_threshold_or_more_and_nothing_is_renormalised():
    found = silence(ROW, after(2), 0.5)
    assert found.tolist() == [0.25, 0.25, 0, 0, 0]
    assert float(found.sum()) == 0.5
    assert torch.equal(silence(ROW, after(3), 0.5), ROW)


def test_below_the_threshold_a_row_stays():
    row = torch.tensor([0.375, 0.3125, 0.1875, 0.125])
    assert torch.equal(silence(row, after(2, 4), 0.4), row)
    assert silence(row, after(2, 4), 0.3125).tolist() == [0.375, 0.3125, 0, 0]


def test_a_threshold_of_zero_silences_always():
    row = torch.tensor([0.5, 0.5, 0.0])
    assert silence(row, after(1, 3), 0).tolist() == [0.5, 0, 0]


def test_masses_in_half_precision_are_added_in_float32():
    row = torch.full((4096,), 1 / 4096, dtype=torch.bfloat16)
    assert silence(row, after(0, 4096), 0.99).sum() == 0


@pytest.fixture(scope="module")
def tiny():
    model = tiny_llava(8, 2)
    prompts = [prompt(model, before, after, seed) for before, after, seed in ((3, 5, 1), (6, 7, 2), (1, 2, 3))]
    return veridical.LVLM(model), prompts, batch(prompts)


def probabilities(lvlm, inputs, decoder):
    """Attention of the first watched layer, edited."""
    kept = {}
    edit = next(iter(decoder.edits(lvlm, inputs)))
    apply = lambda p, call: kept.setdefault(call.layer, (p.clone(), edit.apply(p, call)))[1]
    prefill(lvlm, inputs, [type(edit)(edit.layers, apply)])
    return kept


def test_only_the_last_prompt_row_and_the_watched_heads_change(tiny):
    lvlm, _, inputs = tiny
    old, new = probabilities(lvlm, inputs, ADHH(heads=((2, 1), (2, 6)), threshold=0))[2]
    changed = (old != new).any(3)  # batch head query
    assert changed[:, [1, 6], -1].all()
    assert not changed[:, :, :-1].any()
    assert not changed[:, [0, 2, 3, 4, 5, 7]].any()
    image = lvlm.image_mask(inputs["input_ids"])
    for row in range(3):
        last = int(image[row].nonzero().max())
        assert torch.equal(new[row, 1, -1, : last + 1], old[row, 1, -1, : last + 1])
        assert new[row, 1, -1, last + 1 :].abs().max() == 0


def test_each_row_of_a_batch_is_compared_by_its_own_mass(tiny):
    """The released code adds the masses up: at a threshold between the largest and the sum it would act."""
    lvlm, _, inputs = tiny
    old, _ = probabilities(lvlm, inputs, ADHH(heads=((2, 1),), threshold=0))[2]
    image = lvlm.image_mask(inputs["input_ids"])
    text = image.flip(1).cumsum(1).flip(1) == 0
    masses = (old[:, 1, -1] * text).sum(1)
    between = float((masses.max() + min(masses.sum(), 1.0)) / 2)
    assert masses.max() < between < masses.sum()
    old, new = probabilities(lvlm, inputs, ADHH(heads=((2, 1),), threshold=between))[2]
    assert torch.equal(old, new)


def test_a_sample_without_an_image_is_left_alone(tiny):
    lvlm, _, inputs = tiny
    old, new = probabilities(lvlm, lvlm.image_free(inputs), ADHH(heads=((2, 1),), threshold=0))[2]
    assert torch.equal(old, new)


def test_prompt_rows_before_the_last_keep_their_states(tiny):
    lvlm, _, inputs = tiny
    keep = Reading("block", range(8), keep=lambda h: h, of="block", queries="all")
    plain = prefill(lvlm, inputs, [keep]).by_layer("block")
    found = prefill(lvlm, inputs, [*ADHH(heads=((2, 1),), threshold=0).edits(lvlm, inputs), keep]).by_layer("block")
    change = (found[7] - plain[7]).abs().amax(-1)
    before = change[:, :-1][inputs["attention_mask"][:, :-1].bool()]  # padding has states that nobody reads
    assert float(before.max()) < 1e-5 < float(change[:, -1].min())


# ---------------------------------------------------------------------- which heads are watched


def test_released_lists_belong_to_their_models(tiny):
    named = lambda name: ADHH().pairs(type("Model", (), {"name": name})())
    assert len(named("llava-hf/llava-1.5-7b-hf")) == 20
    assert named("liuhaotian/llava-v1.5-7b")[0] == (16, 29)
    assert len(named("llava-hf/llava-1.5-13b-hf")) == 35
    assert len(named("liuhaotian/llava-v1.6-34b")) == 10
    assert ADHH().for_model("llava-hf/llava-1.5-7b-hf").heads == named("llava-hf/llava-1.5-7b-hf")
    with pytest.raises(ValueError, match=r"none are shipped for .*ADHH\.attribute"):
        ADHH().pairs(tiny[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": ((1, -2),)}, "are no pairs of a layer and a query head"),
        ({"heads": (3, 4)}, "are no pairs of a layer and a query head"),
        ({"threshold": 1.5}, "threshold=1.5 is outside 0 to 1"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ADHH(**options)


def test_a_head_that_the_model_does_not_have_is_refused(tiny):
    with pytest.raises(ValueError, match=r"ADHH asks for heads \[8\]; this model's query heads are 0 to 7"):
        list(ADHH(heads=((2, 8),)).edits(tiny[0], tiny[2]))
    assert not list(ADHH(heads=()).edits(tiny[0], tiny[2]))


# ---------------------------------------------------------------------- attribution


def test_a_word_is_found_where_it_stands_and_not_inside_another():
    tokens = ["A", " ben", "ch", ",", " a", " b", "all", "."]
    assert places("A bench, a ball.", tokens, ["ball"], ["bench"]) == [Place(5, True), Place(1, False)]
    assert places("A bench, a ball.", tokens, ["all", "ben"], []) == []
    assert places("Dog, a dog.", ["Dog", ",", " a", " dog", "."], ["dog"], []) == [Place(0, True), Place(3, True)]


def test_the_influence_is_what_a_pass_with_that_head_silent_loses(tiny):
    """Each head alone, in the last row, against one of all heads in a batch."""
    lvlm, prompts, _ = tiny
    token = 17
    before = prefill(lvlm, prompts[1], []).branches["main"].softmax(-1)[0, token]
    found = influences(lvlm, prompts[1], token, Influence(rows=10))
    for layer, head in ((0, 0), (3, 5), (7, 7)):

        def mute(states, call, head=head):
            states = states.clone()
            states[:, -1, head] = 0
            return states

        after = prefill(lvlm, prompts[1], [HeadEdit([layer], mute)]).branches["main"].softmax(-1)[0, token]
        assert float(found[layer, head]) == pytest.approx(float(before - after), abs=1e-6)
    assert found.shape == (8, 8)


def test_behind_a_prompt_that_is_read_once_influences_are_those_of_whole_passes(tiny, monkeypatch):
    """1e-5 of the largest: differences of probabilities of float32 logits, whose sums have another order."""
    lvlm, prompts, _ = tiny
    width = prompts[1]["input_ids"].shape[1]
    with counted(lvlm) as (images, passes):
        found = influences(lvlm, prompts[1], 17, Influence())
    assert sum(images) == 1
    assert passes == [(1, width - 1), (1, 1), *[(16, 1)] * 4]
    monkeypatch.setattr(last_position, "apart", lambda lvlm, inputs: False)
    with counted(lvlm) as (_, passes):
        whole = influences(lvlm, prompts[1], 17, Influence())
    assert passes == [(1, width), *[(16, width)] * 4]
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_measures_of_influence_are_those_of_the_same_two_probabilities(tiny):
    lvlm, prompts, _ = tiny
    score = {m: influences(lvlm, prompts[0], 17, Influence(m, rows=64)) for m in ("prob_diff", "absolute", "log")}
    torch.testing.assert_close(score["absolute"], score["prob_diff"].abs())
    assert torch.equal(score["log"] > 0, score["prob_diff"] > 0)


def test_at_the_first_token_the_head_is_silent_in_the_whole_prompt(tiny):
    lvlm, prompts, _ = tiny
    one, whole = (influences(lvlm, prompts[0], 17, Influence(), whole=whole) for whole in (False, True))
    assert float((one[7] - whole[7]).abs().max()) < 1e-6  # behind the last layer no other row is read
    assert float((one[:7] - whole[:7]).abs().max()) > 1e-6


def test_a_fit_keeps_the_heads_with_the_largest_difference(tmp_path):
    lvlm = veridical.load("embedded")
    arguments = lvlm, [scene("train", 3).image], ["A dog and a cat."], [["cat"]], [["dog"]]
    scores = ADHH.attribute(*arguments)
    found = ADHH.fit(*arguments, top=3)
    best = scores.flatten().argsort(descending=True)[:3]
    assert found.pairs(lvlm) == [(int(k) // 6, int(k) % 6) for k in best]
    again = ADHH.from_pretrained(found.save_pretrained(tmp_path))
    assert again.pairs(lvlm) == found.pairs(lvlm)
    with pytest.raises(ValueError, match="no true one"):
        ADHH.attribute(lvlm, *arguments[1:4], [[]])
    with pytest.raises(ValueError, match="give one of each for each image"):
        ADHH.attribute(lvlm, [], *arguments[2:])
