"""Every decoder beside every everyday option of transformers' generate, against an independent reading of each step.

The reference: the mitigated logits behind the chosen tokens come from a run without the option, in which those tokens
are forced; transformers' own processors then act on the main rows, with the main prompt's tokens. What is chosen must
be what that leaves as the best.
"""

import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

import veridical
from veridical.decoders.icd import ICD
from veridical.pipelines.engine.logits import Draw, Forced
from veridical.pipelines.engine.run import run

from ..setting import SEEDS, scale

STEPS = 6
LONGER = ICD(prefix_ids=(11, 23, 42, 50, 61, 70), beta=0.0)  # its prompt is six tokens longer than the main one

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


class Repel(LogitsProcessor):
    """A user's own: what the row already has gets less."""

    def __call__(self, input_ids, scores):
        return scores.scatter_add(1, input_ids, torch.full_like(scores, -2.0))


class WritesInPlace(LogitsProcessor):
    """A user's own that changes the tensor that it is handed."""

    def __call__(self, input_ids, scores):
        scores[:, 50:] -= 3.0
        return scores


def odd_or_even(row, ids):
    """A user's prefix function: other tokens for each prompt of the batch."""
    return list(range(5 + row % 2, 128, 2))


def penalty(setting):
    """As transformers makes it; older ones, which take a number alone, penalise padding's token too."""
    try:
        return RepetitionPenaltyLogitsProcessor(1.5, prompt_ignore_length=setting.inputs["attention_mask"].argmax(1))
    except ValueError:
        return RepetitionPenaltyLogitsProcessor(1.5)


def late_end(setting, end):
    return MinNewTokensLengthLogitsProcessor(setting.inputs["input_ids"].shape[1], 4, torch.tensor([end]))


# name -> options of generate, and the processors that transformers makes of them: of a setting and the free run's ids
OPTIONS = {
    "repetition_penalty": lambda s, ids: ({"repetition_penalty": 1.5}, [penalty(s)]),
    "no_repeat_ngram_size": lambda s, ids: ({"no_repeat_ngram_size": 1}, [NoRepeatNGramLogitsProcessor(1)]),
    "min_new_tokens": lambda s, ids: (
        {"min_new_tokens": 4, "eos_token_id": int(ids[0, 0])}, [late_end(s, int(ids[0, 0]))]
    ),
    "bad_words_ids": lambda s, ids: (
        {"bad_words_ids": [[int(ids[0, 0])], ids[1, :2].tolist()]},
        [NoBadWordsLogitsProcessor([[int(ids[0, 0])], ids[1, :2].tolist()])],
    ),
    "suppress_tokens": lambda s, ids: (
        {"suppress_tokens": ids[:, 0].tolist()}, [SuppressTokensLogitsProcessor(ids[:, 0].tolist())]
    ),
    "prefix_allowed_tokens_fn": lambda s, ids: (
        {"prefix_allowed_tokens_fn": odd_or_even}, [PrefixConstrainedLogitsProcessor(odd_or_even, 1)]
    ),
    "own processors": lambda s, ids: (
        {"logits_processor": [Repel(), WritesInPlace()]}, [Repel(), WritesInPlace()]
    ),
    "both": lambda s, ids: (
        {"repetition_penalty": 1.5, "logits_processor": [Repel()]}, [penalty(s), Repel()]
    ),
}  # fmt: skip


def decode(setting, decoder, inputs=None, **options):
    options = {"max_new_tokens": STEPS, "do_sample": False, **options}
    return veridical.generate(setting.lvlm, setting.inputs if inputs is None else inputs, [decoder], **options)


def through_mitigate(setting, decoder, seed=None, **options):
    options = {"max_new_tokens": STEPS, "do_sample": False, **options}
    hook = veridical.mitigate([decoder], **({} if seed is None else {"seed": seed}))
    return setting.model.generate(**setting.inputs, custom_generate=hook, **options)


def new(setting, out):
    prompt = setting.inputs["input_ids"]
    assert torch.equal(out[:, : prompt.shape[1]], prompt)
    return out[:, prompt.shape[1] :]


def behind(setting, decoder, ids):
    """(mitigated, main) logits before each of these tokens, (row, step, vocab), from a run in which they are forced."""
    output, fold, _ = run(
        setting.lvlm, setting.inputs, [decoder], return_logits=True, max_new_tokens=ids.shape[1], do_sample=False,
        logits_processor=[Forced(ids.tolist())], return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    main = torch.stack([step[: len(ids)] for step in output.logits], 1)
    return torch.stack(fold.logits, 1), main


def reference(setting, decoder, ids, processors):
    """(row, step, vocab): what each of these tokens is chosen from."""
    mixed, main = behind(setting, decoder, ids)
    prompt, steps = setting.inputs["input_ids"], []
    for step in range(ids.shape[1]):
        so_far = torch.cat([prompt, ids[:, :step]], 1)
        act = lambda scores, so_far=so_far: LogitsProcessorList(processors)(so_far, scores.clone())
        left = act(mixed[:, step])
        own = act(main[:, step])  # where a cut and the processors together leave nothing
        steps.append(torch.where(left.isneginf().all(1, keepdim=True), own, left))
    return torch.stack(steps, 1)


def assert_best(ids, scores, mask):
    """Each token is the best there is, but for rounding of another number of rows."""
    chosen = scores.gather(2, ids[..., None])[..., 0]
    assert chosen[mask].isfinite().all(), "a forbidden token was chosen"
    assert float((scores.amax(2) - chosen)[mask].max()) <= 1e-4 * scale(scores)


def until_end(ids, end):
    ended = ids == end
    return ended.cumsum(1) - ended.long() == 0


@pytest.mark.parametrize("option", OPTIONS)
def test_processors_act_on_the_main_rows_behind_the_contrast(tiny, name, option):
    decoder = tiny.acting(name)
    options, processors = OPTIONS[option](tiny, decode(tiny, decoder).ids)
    ours, theirs = decode(tiny, decoder, **options), new(tiny, through_mitigate(tiny, decoder, **options))
    mask = until_end(ours.ids, options.get("eos_token_id", -1))
    assert torch.equal(theirs[:, : ours.ids.shape[1]][mask], ours.ids[mask])
    assert_best(ours.ids, reference(tiny, decoder, ours.ids, processors), mask)


def test_each_option_changes_a_text(tiny):
    """Otherwise the test above says nothing of it."""
    free = decode(tiny, LONGER).ids
    for option, make in OPTIONS.items():
        ids = decode(tiny, LONGER, **make(tiny, free)[0]).ids
        assert ids.shape != free.shape or not torch.equal(ids, free), option


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 0}], ids=str)
@pytest.mark.parametrize("option", OPTIONS)
def test_all_blocks_choose_the_same_tokens_whatever_stands_in_the_list(tiny, option, mode):
    """With a branch whose prompt is longer, so that each block's own tokens would call for other penalties."""
    options, _ = OPTIONS[option](tiny, decode(tiny, LONGER).ids)
    options = {"max_new_tokens": STEPS, "do_sample": False, **options, **mode}
    output, fold, prompt = run(tiny.lvlm, tiny.inputs, [LONGER], **options)
    blocks = output[:, prompt:].chunk(len(fold.arranged.names))
    assert len(blocks) == 2
    assert torch.equal(*blocks)


def test_samples_are_drawn_from_what_the_processors_leave(tiny, name):
    decoder = tiny.acting(name)
    options = {"repetition_penalty": 1.5, "do_sample": True, "temperature": 1.3, "top_p": 0.9, "top_k": 0}
    ours = decode(tiny, decoder, seed=SEEDS, **options).ids
    assert torch.equal(new(tiny, through_mitigate(tiny, decoder, SEEDS, **options)), ours)
    warpers = [penalty(tiny), TemperatureLogitsWarper(1.3), TopPLogitsWarper(0.9)]
    scores, draw = reference(tiny, decoder, ours, warpers), Draw(1, len(ours), SEEDS)
    assert torch.equal(torch.stack([draw(ours, one).argmax(1) for one in scores.unbind(1)], 1), ours)


def test_beams_add_up_what_the_processors_leave(tiny, name):
    """A text of three tokens scores what its tokens' processed log-probabilities add up to."""
    decoder, options = tiny.acting(name), {"repetition_penalty": 1.5, "num_beams": 3, "max_new_tokens": 3}
    out = through_mitigate(
        tiny, decoder, **options, length_penalty=0.0, return_dict_in_generate=True, output_scores=True
    )
    ids = new(tiny, out.sequences)
    assert torch.equal(decode(tiny, decoder, **options).ids, ids)
    mixed, _ = behind(tiny, decoder, ids)
    prompt, total = tiny.inputs["input_ids"], torch.zeros(len(ids))
    for step in range(3):
        so_far = torch.cat([prompt, ids[:, :step]], 1)
        left = penalty(tiny)(so_far, mixed[:, step].log_softmax(1))
        total += left.gather(1, ids[:, step : step + 1])[:, 0]
    assert float((out.sequences_scores - total).abs().max()) <= 1e-3
