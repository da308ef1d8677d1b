"""`model.generate(custom_generate=veridical.mitigate([...]))` chooses what `veridical.generate` chooses."""

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, SuppressTokensLogitsProcessor

import veridical

from ..setting import MODES, SEEDS, STEPS, assert_unchanged, scale, seeded, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


class Favour(LogitsProcessor):
    """A user's own: one token gets more."""

    def __init__(self, token, much):
        self.token, self.much = token, much

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.token] += self.much
        return scores


class Repel(LogitsProcessor):
    """A user's own: what the row already has gets less."""

    def __call__(self, input_ids, scores):
        return scores.scatter_add(1, input_ids, torch.full_like(scores, -2.0))


def through_transformers(setting, decoders, mode="greedy", inputs=None, seeds=SEEDS, **options):
    inputs = setting.inputs if inputs is None else inputs
    seed = {"seed": list(seeds)} if mode == "sampling" else {}
    out = setting.model.generate(
        **inputs, custom_generate=veridical.mitigate(decoders, **seed), max_new_tokens=STEPS, **MODES[mode], **options
    )
    if not isinstance(out, torch.Tensor):
        return out
    prompt = inputs["input_ids"].shape[1]
    assert torch.equal(out[:, :prompt], inputs["input_ids"])
    return out[:, prompt:]


@pytest.mark.parametrize("mode", MODES)
def test_tokens_are_those_of_veridical_generate(setting, name, mode):
    ours = setting.acting_tokens(name, mode)
    assert torch.equal(through_transformers(setting, [setting.acting(name)], mode), ours)


@pytest.mark.parametrize("mode", MODES)
def test_one_unpadded_prompt_gives_the_tokens_of_veridical_generate(tiny, name, mode):
    """transformers drops an attention mask of ones before it calls us."""
    inputs, decoder = tiny.prompts[1], tiny.acting(name)
    ours = tiny.tokens([decoder], inputs, mode, SEEDS[:1])
    assert torch.equal(through_transformers(tiny, [decoder], mode, inputs, SEEDS[:1]), ours)


def test_the_image_reaches_the_model(setting):
    """Other pixels, other tokens: transformers 5.24 encodes the image before it calls us and keeps the pixels."""
    other = {**setting.inputs, "pixel_values": setting.inputs["pixel_values"].flip(0) * 0.5}
    for inputs in (setting.inputs, other):
        theirs = setting.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
        ours = through_transformers(setting, [], inputs=inputs)
        assert torch.equal(ours, theirs[:, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("mode", MODES)
def test_two_processors_of_the_users_own_see_the_mitigated_logits(tiny, name, mode):
    decoder = tiny.acting(name)
    taken = sorted(set(tiny.acting_tokens(name, mode).flatten().tolist()))
    own = LogitsProcessorList([Favour(taken[0], 3.0), Repel()])
    ours = tiny.generate([decoder], logits_processor=own, **MODES[mode], **seeded(mode, SEEDS)).ids
    theirs = through_transformers(tiny, [decoder], mode, logits_processor=own)
    assert torch.equal(theirs, ours)


def test_a_users_processor_of_transformers_own_classes_is_kept(tiny, name):
    taken = tiny.acting_tokens(name)[:, 0].unique().tolist()
    own = LogitsProcessorList([SuppressTokensLogitsProcessor(taken)])
    theirs = through_transformers(tiny, [tiny.acting(name)], logits_processor=own)
    assert not torch.isin(theirs, torch.tensor(taken)).any()
    assert torch.equal(theirs, tiny.generate([tiny.acting(name)], logits_processor=own).ids)


def test_settings_of_the_call_stay_in_force(tiny, name):
    """Once, not twice: a penalty applied by both generate calls would be its square."""
    options = {"repetition_penalty": 1.3, "suppress_tokens": tiny.acting_tokens(name)[:, 0].unique().tolist()}
    ours = tiny.generate([tiny.acting(name)], **options).ids
    assert torch.equal(through_transformers(tiny, [tiny.acting(name)], **options), ours)


def test_a_stopping_criterion_of_the_users_own_stops(tiny, name):
    stop = lambda ids, scores, **given: torch.ones(ids.shape[0], dtype=torch.bool)
    assert through_transformers(tiny, [tiny.acting(name)], stopping_criteria=[stop]).shape[1] == 1


def test_a_full_output_has_the_main_rows_alone(tiny, name):
    out = through_transformers(tiny, [tiny.acting(name)], return_dict_in_generate=True, output_scores=True)
    rows, prompt = tiny.inputs["input_ids"].shape
    assert out.sequences.shape == (rows, prompt + STEPS)
    assert torch.equal(out.sequences[:, prompt:], tiny.acting_tokens(name))
    scores, ours = torch.stack(out.scores, 1), tiny.acting_logits(name)
    assert torch.equal(scores.isfinite(), ours.isfinite())
    finite = ours.isfinite()
    assert float((scores - ours)[finite].abs().max()) <= 1e-5 * scale(ours)


def test_nothing_is_left_behind(tiny, name):
    before = snapshot(tiny.lvlm)
    through_transformers(tiny, [tiny.acting(name)])
    assert_unchanged(before, snapshot(tiny.lvlm))
    assert torch.equal(tiny.logits(), tiny.plain())


def test_a_streamer_is_fed_the_main_rows_tokens(tiny):
    """Through veridical.generate; transformers itself hands no streamer to a custom_generate callable."""

    class Kept:
        def __init__(self):
            self.values, self.ended = [], False

        def put(self, value):
            self.values.append(value)

        def end(self):
            self.ended = True

    kept, inputs = Kept(), tiny.prompts[0]
    ids = tiny.generate(["vcd"], inputs, streamer=kept).ids
    assert kept.ended
    assert [value.tolist() for value in kept.values[-STEPS:]] == [[token] for token in ids[0].tolist()]
