"""ProjectAway's numbers, by hand: what is subtracted, in which order, from which positions."""

import pytest
import torch

import veridical
from veridical.decoders.project_away import ProjectAway, erase
from veridical.pipelines.engine.declarations import Reading
from veridical.pipelines.engine.run import Observers, prefill
from veridical.pipelines.engine.run import run as engine_run
from veridical.pipelines.inputs.word_tokens import start_of, word_tokens
from veridical.testing.tiny import batch, prompt, tiny_llava

STATES = torch.tensor([[2.0, 2], [-1, 3], [0, -4]])


def erased(vectors, alpha, states=STATES):
    return erase(states, torch.tensor(vectors, dtype=torch.float32), alpha).tolist()


def test_the_positive_part_along_a_word_is_subtracted_alpha_times():
    assert erased([[0, 2]], 1) == [[2, 0], [-1, 0], [0, -4]]
    assert erased([[0, 2]], 1.5) == [[2, -1], [-1, -1.5], [0, -4]]
    assert erased([[1, 1]], 1.5) == [[-1, -1], [-2.5, 1.5], [0, -4]]


def test_several_words_are_subtracted_in_turn_from_what_is_left():
    one = torch.tensor([[1.0, 1]])
    assert erased([[1, 0], [1, 1]], 1, one) == [[-0.5, 0.5]]
    assert erased([[1, 1], [1, 0]], 1, one) == [[0, 0]]


def test_the_length_of_a_direction_does_not_count_and_once_at_alpha_one_is_enough():
    assert erased([[3, 3]], 1.5) == erased([[1, 1]], 1.5)
    assert erased([[1, 1], [1, 1]], 1) == erased([[1, 1]], 1)


def test_a_direction_of_zeros_erases_nothing():
    assert erased([[0, 0]], 1.5) == STATES.tolist()


def test_states_in_half_precision_are_projected_in_float32():
    states, t = torch.full((1, 4), 300.0, dtype=torch.float16), torch.full((1, 4), 200.0, dtype=torch.float16)
    found = erase(states, t, 1)
    assert found.dtype == torch.float16
    assert found.tolist() == [[0, 0, 0, 0]]


@pytest.fixture(scope="module")
def tiny():
    model = tiny_llava(8, 2)
    prompts = [prompt(model, before, after, seed) for before, after, seed in ((3, 5, 1), (6, 7, 2), (1, 2, 3))]
    return veridical.LVLM(model), prompts, batch(prompts)


def states_of(lvlm, inputs, decoder=None):
    edits = [] if decoder is None else decoder.edits(lvlm, inputs)
    keep = Reading("block", range(8), keep=lambda h: h, of="block", queries="all")
    return prefill(lvlm, inputs, [*edits, keep]).by_layer("block")


def test_only_image_positions_of_its_layers_output_change(tiny):
    lvlm, _, inputs = tiny
    plain, found = states_of(lvlm, inputs), states_of(lvlm, inputs, ProjectAway(objects=((5, 6),), layer=4))
    change = [(found[layer] - plain[layer]).abs().amax(-1) for layer in range(8)]
    image = lvlm.image_mask(inputs["input_ids"])
    assert all(float(change[layer].max()) == 0 for layer in range(4))
    assert bool((change[4][image] > 0).any())
    assert float(change[4][~image].max()) == 0


def test_passes_behind_the_prompt_are_left_as_they_are(tiny):
    """Their own positions hold no image: the edit returns the very tensor that it is handed."""
    lvlm, _, inputs = tiny
    calls = []

    class Watched(ProjectAway):
        def edit(self, vectors, hidden, call):
            out = super().edit(vectors, hidden, call)
            calls.append((hidden.shape[1], out is hidden))
            return out

    engine_run(lvlm, inputs, [Watched(objects=((5,),))], Observers(), max_new_tokens=3, do_sample=False)
    assert calls == [(inputs["input_ids"].shape[1], False), (1, True), (1, True)]


def test_a_words_direction_does_not_depend_on_the_image_or_on_the_words_beside_it(tiny):
    lvlm, _, _ = tiny
    decoder = ProjectAway(text_layer=4)
    alone = torch.cat([decoder.directions(lvlm, [word]) for word in ((5, 6, 7), (9,))])
    together = decoder.directions(lvlm, [(5, 6, 7), (9,)])
    assert float((alone - together).abs().max()) < 1e-5


def test_a_batch_with_objects_for_each_sample_is_each_sample_alone(tiny):
    lvlm, prompts, inputs = tiny
    objects = (((5, 6),), (), ((7,), (9,)))
    options = {"return_logits": True, "max_new_tokens": 3, "do_sample": False}
    together = veridical.generate(lvlm, inputs, [ProjectAway(objects=objects)], **options).logits
    for row, one in enumerate(prompts):
        alone = veridical.generate(lvlm, one, [ProjectAway(objects=objects[row])], **options).logits
        assert float((together[row] - alone[0]).abs().max()) < 1e-4


def test_no_objects_or_no_strength_is_plain_decoding():
    assert ProjectAway().is_neutral
    assert ProjectAway(objects=((), ())).is_neutral
    assert ProjectAway(objects=("dog",), alpha=0).is_neutral
    assert not ProjectAway(objects=("dog",)).is_neutral


def test_a_word_is_spelt_as_behind_a_space():
    lvlm = veridical.load("embedded")
    spelt = lvlm.processor.tokenizer.convert_ids_to_tokens(word_tokens(lvlm, "stop sign"))
    assert spelt == ["Ġstop", "Ġsign"]
    assert start_of(lvlm) == (1,)  # its chat template writes it, the tokenizer alone does not
    assert start_of(veridical.LVLM(lvlm.model)) == (1,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": (5, 6)}, r"objects=\(5, 6\) are no words"),
        ({"objects": ("dog", ("cat",))}, "are no words"),
        ({"objects": ""}, "are no words"),
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"layer": -1}, "layer=-1 is below 0"),
        ({"text_layer": -2}, "text_layer=-2 is below -1"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ProjectAway(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": (((5,),), ())}, "objects for 2 samples, and this batch has 3"),
        ({"objects": ("dog",)}, "has no processor, which turns the word 'dog' into tokens"),
        ({"objects": ((500,),)}, r"\(500,\) are no token ids of .*, which are 0 to 127"),
        ({"objects": ((5,),), "layer": 8}, r"ProjectAway asks for layers \[8\]"),
    ],
)
def test_what_does_not_fit_the_batch_or_the_model_is_one_sentence(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        veridical.generate(tiny[0], tiny[2], [ProjectAway(**options)], max_new_tokens=1)


def test_one_word_may_stand_without_its_brackets():
    assert ProjectAway(objects="hot dog").objects == ("hot dog",)
    assert ProjectAway(objects=["dog", [5, 6]]).objects == ("dog", (5, 6))


def test_the_defaults_are_the_released_demos_and_two_models_have_the_papers():
    assert ProjectAway() == ProjectAway(objects=(), alpha=1.5, layer=2, text_layer=0) == ProjectAway.official()
    fitted = ProjectAway(objects=("dog",)).for_model("llava-hf/llava-1.5-7b-hf")
    assert fitted == ProjectAway(objects=("dog",), alpha=3.5, layer=19, text_layer=20)
    fitted = ProjectAway(objects=("dog",)).for_model("Salesforce/instructblip-vicuna-7b")
    assert fitted == ProjectAway(objects=("dog",), layer=1, text_layer=1)
