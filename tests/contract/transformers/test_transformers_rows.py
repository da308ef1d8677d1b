"""The caller of transformers' generate deals with the main rows alone: criteria, lengths, full outputs, refusals."""

import math

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria

import veridical
from veridical.datasets.world import scene
from veridical.pipelines.engine.declarations import LogitsEdit

from ..setting import Declares
from .test_transformers_options import LONGER, STEPS, decode, new, through_mitigate

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
WAYS = {
    "generate": lambda setting, decoder, **options: decode(setting, decoder, **options).ids,
    "mitigate": lambda setting, decoder, **options: new(setting, through_mitigate(setting, decoder, **options)),
}


@pytest.fixture(params=WAYS)
def tokens(request):
    """(row, token) of the new tokens, through either entry point."""
    return WAYS[request.param]


class Watches(LogitsProcessor):
    """Notes what it is handed, and changes nothing."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append((input_ids.clone(), scores.shape))
        return scores


class Stops(StoppingCriteria):
    """Ends each prompt's text after as many tokens as it says, and notes what it is handed."""

    def __init__(self, prompt, counts):
        self.prompt, self.counts, self.seen = prompt, torch.tensor(counts), []

    def __call__(self, input_ids, scores, **kwargs):
        self.seen.append(input_ids.clone())
        count = input_ids.shape[1] - self.prompt
        return count >= self.counts.repeat_interleave(len(input_ids) // len(self.counts))


@pytest.mark.parametrize("beams", [1, 3])
def test_processors_criteria_and_prefix_functions_see_the_main_prompts_alone(tiny, tokens, beams):
    prompt = tiny.inputs["input_ids"]
    rows, length = len(prompt) * beams, prompt.shape[1]
    watches, stops, requests = Watches(), Stops(length, [99] * 3), set()
    allowed = lambda row, ids: requests.add((row, len(ids))) or list(range(5, 128))
    tokens(
        tiny, LONGER, num_beams=beams, logits_processor=[watches], stopping_criteria=[stops],
        prefix_allowed_tokens_fn=allowed,
    )  # fmt: skip
    assert len(watches.seen) == STEPS
    for step, (ids, shape) in enumerate(watches.seen):
        assert ids.shape == (rows, length + step)
        assert shape[0] == rows
        assert torch.equal(ids[:, :length], prompt.repeat_interleave(beams, 0))
    assert all(torch.equal(ids[:, :length].unique(dim=0), prompt.unique(dim=0)) for ids in stops.seen)
    assert {row for row, _ in requests} == {0, 1, 2}
    assert {count for _, count in requests} == set(range(length, length + STEPS))


def test_a_criterion_ends_each_prompts_text_in_all_its_blocks(tiny, tokens):
    free = tokens(tiny, LONGER)
    stops = Stops(tiny.inputs["input_ids"].shape[1], [2, 4, 3])
    ids = tokens(tiny, LONGER, stopping_criteria=[stops], eos_token_id=127)
    assert ids.shape[1] == 4
    for row, count in enumerate([2, 4, 3]):
        assert torch.equal(ids[row, :count], free[row, :count])
        assert (ids[row, count:] == tiny.lvlm.pad_token).all()


def test_a_text_that_a_criterion_ends_counts_no_later_steps(tiny):
    stops = Stops(tiny.inputs["input_ids"].shape[1], [2, 4, 3])
    out = decode(tiny, "vcd:beta=0", stopping_criteria=[stops], eos_token_id=127)
    assert out.acted["vcd"].steps.tolist() == [2, 4, 3]


@pytest.mark.parametrize(
    "criterion",
    [lambda p: MaxLengthCriteria(p + 2), lambda p: MaxTimeCriteria(1e-9), lambda p: EosTokenCriteria(list(range(128)))],
    ids=["length", "time", "end"],
)
def test_a_criterion_of_a_class_that_the_settings_also_make_stays_in_force(tiny, tokens, criterion):
    found = tokens(
        tiny, LONGER, stopping_criteria=[criterion(tiny.inputs["input_ids"].shape[1])], max_time=100.0, eos_token_id=127
    )
    assert 1 <= found.shape[1] <= 2


def test_max_length_counts_the_main_prompt(tiny, tokens):
    longest = tiny.inputs["input_ids"].shape[1] + 4
    options = {"max_new_tokens": None, "max_length": longest}
    assert tokens(tiny, LONGER, **options).shape[1] == 4
    assert tokens(tiny, "greedy", **options).shape[1] == 4
    config = GenerationConfig(max_length=longest, do_sample=False, eos_token_id=127, pad_token_id=0)
    assert veridical.generate(tiny.lvlm, tiny.inputs, [LONGER], generation_config=config).ids.shape[1] == 4


def test_a_max_length_that_leaves_no_token_is_refused(tiny):
    longest = tiny.inputs["input_ids"].shape[1]
    with pytest.raises(ValueError, match=rf"max_length={longest} leaves no new token behind {longest} prompt tokens"):
        veridical.generate(tiny.lvlm, tiny.inputs, [LONGER], max_length=longest)


def test_min_length_counts_the_main_prompt(tiny, tokens):
    end = int(tokens(tiny, LONGER)[0, 0])
    ids = tokens(tiny, LONGER, eos_token_id=end, min_length=tiny.inputs["input_ids"].shape[1] + 3)
    assert not (ids[:, :3] == end).any()


def test_min_new_tokens_forbid_the_end_no_longer_than_they_say(tiny, tokens):
    """A longer branch would have it forbidden for as many steps more."""
    free = tokens(tiny, LONGER)
    row, end = next((row, ids[3]) for row, ids in enumerate(free.tolist()) if ids[3] not in ids[:3])
    ids = tokens(tiny, LONGER, eos_token_id=end, min_new_tokens=3)
    assert torch.equal(ids[row, :4], free[row, :4])
    assert (ids[row, 4:] == tiny.lvlm.pad_token).all()


def test_stop_strings_end_a_text():
    """With the processor's tokenizer, which transformers does not hand on beside a decoding function."""
    lvlm = veridical.load("embedded", device="cpu")
    inputs = lvlm.prepare([scene("test", 0).image], ["Please describe this image in detail."])
    free = veridical.generate(lvlm, inputs, ["vcd"], max_new_tokens=12, do_sample=False).text[0]
    word = free.split()[4]
    cut = veridical.generate(lvlm, inputs, ["vcd"], max_new_tokens=12, do_sample=False, stop_strings=[word]).text[0]
    assert cut == free[: free.index(word) + len(word)]
    assert cut != free


def test_a_text_is_its_own_after_the_processors_have_written_over_what_they_got(tiny):
    """Detectors read the model's own logits, whatever the processors do with the tensor."""

    class Flattens(LogitsProcessor):
        def __call__(self, input_ids, scores):
            best = scores.argmax(1)
            scores[:] = -1.0
            return scores.scatter(1, best[:, None], 1.0)

    options = {"max_new_tokens": STEPS, "do_sample": False}
    plain = veridical.generate(tiny.lvlm, tiny.inputs, [], ["entropy"], **options)
    flat = veridical.generate(tiny.lvlm, tiny.inputs, [], ["entropy"], logits_processor=[Flattens()], **options)
    assert torch.equal(flat.ids, plain.ids)
    assert torch.equal(flat.risk["entropy"], plain.risk["entropy"])


def test_a_detector_reads_the_model_and_not_the_penalty(tiny):
    """So that a text's risk is the same while it is chosen and afterwards."""
    out = veridical.generate(
        tiny.lvlm, tiny.inputs, [], ["entropy"], max_new_tokens=STEPS, do_sample=False, repetition_penalty=1.7
    )
    after = veridical.score(tiny.lvlm, tiny.inputs, out.ids, ["entropy"])["entropy"]
    torch.testing.assert_close(out.risk["entropy"], after, rtol=0, atol=1e-4)


def test_logits_are_what_the_choice_is_made_from_before_temperature_and_the_callers_own(tiny):
    options = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    out = decode(tiny, LONGER, return_logits=True, **options)
    assert torch.equal(out.logits.argmax(-1), out.ids)
    warm = decode(tiny, LONGER, return_logits=True, do_sample=True, temperature=9.0, top_k=1, **options)
    assert torch.equal(warm.logits, out.logits)
    assert torch.equal(decode(tiny, LONGER, return_logits=True, logits_processor=[Watches()]).logits,
                       decode(tiny, LONGER, return_logits=True).logits)  # fmt: skip


SAMPLED = {"do_sample": True, "top_k": 0, "min_p": 0.1, "typical_p": 0.5, "eta_cutoff": 0.1, "top_h": 0.4}


# -- cut and forbidden ---------------------------------------------------------------------------------------------
def leaves_the_best(logits, step):
    return logits.masked_fill(logits < logits.amax(1, keepdim=True), -math.inf)


def test_where_the_cut_and_the_processors_leave_nothing_the_models_own_logits_decide(tiny, tokens):
    """The second-best token of the model, not token 0."""
    best = tokens(tiny, "greedy", max_new_tokens=1)
    forbidden = best[:, 0].unique().tolist()
    cut, options = Declares([LogitsEdit(leaves_the_best)]), {"max_new_tokens": 1, "suppress_tokens": forbidden}
    ids = veridical.generate(tiny.lvlm, tiny.inputs, [cut], do_sample=False, **options).ids
    assert torch.equal(ids, tokens(tiny, "greedy", **options))


def test_a_cut_token_stays_cut_where_a_processors_arithmetic_gives_no_number(tiny):
    """−∞ + |−∞| is none."""

    class Grows(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores + scores.abs()

    cut = Declares([LogitsEdit(leaves_the_best)])
    options = {"max_new_tokens": STEPS, "do_sample": False}
    out = veridical.generate(tiny.lvlm, tiny.inputs, [cut], logits_processor=[Grows()], **options)
    assert not out.broken.any()
    assert torch.equal(out.ids, decode(tiny, "greedy").ids)


@pytest.mark.parametrize("option", [{"no_repeat_ngram_size": 1}, {"repetition_penalty": 1.5}, SAMPLED], ids=str)
def test_no_logit_becomes_infinite(tiny, name, option):
    out = decode(tiny, tiny.acting(name), return_logits=True, **option)
    assert not out.broken.any()
    assert not out.logits.isnan().any()
    assert not (out.logits == math.inf).any()


# -- full outputs --------------------------------------------------------------------------------------------------
FULL = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "output_hidden_states": True}


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 9}], ids=str)
def test_a_full_output_is_the_main_rows(tiny, mode):
    out = through_mitigate(tiny, LONGER, 0, **FULL, **mode)
    rows, prompt = tiny.inputs["input_ids"].shape
    wide = rows * mode.get("num_beams", 1)
    assert out.sequences.shape == (rows, prompt + STEPS)
    assert all(one.shape == (wide, 128) for one in (*out.scores, *out.logits))
    assert [one[0].shape[:2] for one in out.hidden_states] == [(wide, prompt)] + [(wide, 1)] * (STEPS - 1)
    cache = out.cache if "cache" in out else out.past_key_values
    assert cache.layers[0].keys.shape[0] == wide
    assert cache.layers[0].keys.shape[2] == prompt + STEPS - 1


def test_a_cut_cache_is_the_one_of_the_prompt_alone(tiny):
    """ICD's branch is longer; what is left holds the main prompt's keys, in the main prompt's places."""
    cut, plain = (through_mitigate(tiny, decoder, 0, **FULL, max_new_tokens=1) for decoder in (LONGER, "greedy"))
    ours, theirs = ((out.cache if "cache" in out else out.past_key_values).layers[2].keys for out in (cut, plain))
    real = tiny.inputs["attention_mask"].bool()
    difference = (ours - theirs).transpose(1, 2)[real]
    assert float(difference.abs().max()) <= 1e-4
    states = (cut.hidden_states[0][-1] - plain.hidden_states[0][-1])[real]
    assert float(states.abs().max()) <= 1e-4


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 9}], ids=str)
def test_transition_scores_can_be_computed(tiny, mode):
    """Beams: they add up to the text's score. Sampling: they are of what is drawn from, not of the draw."""
    out = through_mitigate(tiny, "icd:prefix_ids=(5,6,7)", 0, **FULL, **mode, length_penalty=0.0)
    beams = out.beam_indices if "num_beams" in mode else None
    found = tiny.model.compute_transition_scores(out.sequences, out.scores, beams, normalize_logits=beams is None)
    assert found.shape == (3, STEPS)
    assert found.isfinite().all()
    if beams is not None:
        torch.testing.assert_close(found.sum(1), out.sequences_scores, rtol=0, atol=1e-4)
    elif mode:
        assert (found < 0).any()


def test_acted_with_beams_is_the_same_in_a_batch_as_alone(tiny):
    """Texts end at different steps; a text's count ends with it, though the search goes on for others."""
    ids = decode(tiny, "vcd:beta=0", num_beams=3).ids
    end = int(ids[0, 1])
    options = {"num_beams": 3, "eos_token_id": end, "max_new_tokens": 10}
    together = decode(tiny, "vcd:beta=0", **options)
    lengths = []
    for row, prompt in enumerate(tiny.prompts):
        alone = decode(tiny, "vcd:beta=0", prompt, **options)
        lengths.append(float(alone.acted["vcd"].steps[0]))
        for what, value in ((what, value) for what, value in vars(alone.acted["vcd"]).items() if value is not None):
            torch.testing.assert_close(getattr(together.acted["vcd"], what)[row], value[0], rtol=0, atol=1e-4)
    assert len(set(lengths)) > 1, "otherwise this shows nothing"


# -- refusals ------------------------------------------------------------------------------------------------------
REFUSED = {
    "beam sampling": ({"num_beams": 3, "do_sample": True}, "beam search with do_sample=True"),
    "several texts": ({"num_return_sequences": 2, "do_sample": True}, "num_return_sequences=2 is not supported"),
    "several beams' texts": ({"num_return_sequences": 2, "num_beams": 2}, "num_return_sequences=2 is not supported"),
    "contrastive search": ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha=0.6 asks for contrastive search"),
    "groups": ({"num_beam_groups": 2, "num_beams": 4, "diversity_penalty": 0.5}, "num_beam_groups=2 asks for a"),
    "DoLa": ({"dola_layers": "low"}, "dola_layers='low' asks for a decoding loop.*decoders=\\[\"dola\"\\]"),
    "look-up": ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens=2 asks for a"),
    "words": ({"force_words_ids": [[7]], "num_beams": 2}, "force_words_ids=\\[\\[7\\]\\] asks for a"),
    "guidance": ({"guidance_scale": 1.5}, "guidance_scale=1.5 asks the model once more inside every step"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_silently_give_another_text_is_refused_by_both_entry_points(tiny, tokens, what):
    options, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        tokens(tiny, "vcd", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streamer": object(), "num_beams": 2}, "a streamer with num_beams > 1"),
        ({"assistant_model": object()}, "assistant_model proposes tokens"),
        ({"custom_generate": object()}, "custom_generate is the place"),
        ({"past_key_values": object()}, "past_key_values holds rows"),
    ],
)
def test_arguments_that_methods_cannot_follow_are_refused(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        decode(tiny, "vcd", **options)


def test_a_configuration_without_beams_has_the_models_own(tiny, monkeypatch):
    """transformers fills what a given configuration leaves open from the model's own."""
    monkeypatch.setattr(tiny.model.generation_config, "num_beams", 3)
    config = GenerationConfig(max_new_tokens=STEPS, do_sample=False)
    ours = veridical.generate(tiny.lvlm, tiny.inputs, ["vcd:beta=0"], generation_config=config)
    monkeypatch.undo()
    assert torch.equal(ours.ids, decode(tiny, "vcd:beta=0", num_beams=3).ids)
