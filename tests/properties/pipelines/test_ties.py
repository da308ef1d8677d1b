"""Steps at which several tokens have the highest score are counted, where greedy decoding chooses."""

import pytest
import torch

import veridical
from veridical.pipelines.results import answers_of
from veridical.testing.tiny import batch, prompt, tiny_llava

STEPS = 12


@pytest.fixture
def twins():
    """A model in which every second token has the logit of the one before it."""
    model = tiny_llava(8, 2)
    head = model.get_output_embeddings().weight.data
    head[1::2] = head[0::2]
    return veridical.LVLM(model), batch([prompt(model, 3, 5, 1), prompt(model, 6, 7, 2)])


@pytest.mark.parametrize("decoders", [[], ["vcd"], ["dola"]], ids=["greedy", "vcd", "dola"])
def test_where_every_token_has_a_twin_every_step_is_tied(twins, decoders):
    lvlm, inputs = twins
    out = veridical.generate(lvlm, inputs, decoders, max_new_tokens=STEPS, eos_token_id=None)
    assert out.tied.tolist() == [STEPS] * 2
    assert (out.ids % 2 == 0).all()  # the first of the two


def test_steps_are_counted_one_by_one_and_not_behind_the_end_of_a_text(twins):
    lvlm, inputs = twins
    head = lvlm.model.get_output_embeddings().weight.data
    first = veridical.generate(lvlm, inputs, [], max_new_tokens=STEPS, eos_token_id=None).ids
    head[int(first[0, 0]) + 1] *= 0.5  # this pair no longer ties
    free = veridical.generate(lvlm, inputs, [], max_new_tokens=STEPS, eos_token_id=None, return_logits=True)
    expected = (free.logits == free.logits.amax(2, keepdim=True)).sum(2) > 1
    assert expected.any()
    assert not expected.all()
    assert free.tied.tolist() == expected.sum(1).tolist()
    end = int(free.ids[1, 4])
    ended = veridical.generate(lvlm, inputs, [], max_new_tokens=STEPS, eos_token_id=end, pad_token_id=0)
    lengths = [[*row.tolist(), end].index(end) + 1 for row in ended.ids]
    counts = [int(row[:length].sum()) for row, length in zip(expected, lengths, strict=True)]
    assert ended.tied.tolist() == counts


@pytest.mark.parametrize("options", [{"do_sample": True, "seed": 1}, {"num_beams": 2}], ids=["sampling", "beams"])
def test_where_greedy_decoding_does_not_choose_nothing_is_counted(twins, options):
    lvlm, inputs = twins
    out = veridical.generate(lvlm, inputs, [], max_new_tokens=4, **options)
    assert out.tied is None


def test_an_answer_has_the_count_of_its_row():
    out = veridical.load("embedded").caption([veridical.datasets.world.scene("test", 1).image], max_new_tokens=6)
    assert out[0].tied == 0  # float32
    generation = veridical.Generation(torch.zeros(1, 2, dtype=torch.long), text=["a"], broken=torch.zeros(1).bool())
    assert answers_of(veridical.load("embedded"), generation)[0].tied is None
