"""Beam search with every decoder against one written out here, and sampling against the distribution it says.

The search here keeps no beams in the engine: it asks for the mitigated logits behind every prefix in a greedy run in
which that prefix is forced, and adds up their log-probabilities. It fails if branches follow other beams than the main
rows, or if log-probabilities are those of the model in place of the method's.
"""

import pytest
import torch
from transformers import LogitsProcessor

from .setting import STEPS

BEAMS = 3

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


class Prefix(LogitsProcessor):
    """Forces the same tokens in every branch. A branch with a longer prompt pads all rows, so steps are counted."""

    def __init__(self, tokens):
        self.tokens, self.prompt = tokens, None

    def __call__(self, input_ids, scores):
        self.prompt = self.prompt or input_ids.shape[1]
        at = input_ids.shape[1] - self.prompt
        if at >= self.tokens.shape[1]:
            return scores
        wanted = self.tokens[:, at].repeat(scores.shape[0] // len(self.tokens))
        return torch.full_like(scores, -torch.inf).scatter(1, wanted[:, None], 0.0)


def behind(setting, decoder, prompt, prefixes):
    """(prefix, vocab) log-probabilities of the next token, mitigated, behind each prefix (prefix, token)."""
    rows = {name: value.repeat_interleave(len(prefixes), 0) for name, value in prompt.items()}
    force = Prefix(prefixes)
    count = prefixes.shape[1] + 1
    generation = setting.generate([decoder], rows, return_logits=True, max_new_tokens=count, logits_processor=[force])
    assert torch.equal(generation.ids[:, : count - 1], prefixes)
    return generation.logits[:, -1].log_softmax(1)


def search(setting, decoder, prompt, steps=STEPS, beams=BEAMS):
    """The best text of a beam search without an end token, and how far ahead of the next best it is."""
    prefixes, scores = torch.empty(1, 0, dtype=torch.long), torch.zeros(1)
    for _ in range(steps):
        total = scores[:, None] + behind(setting, decoder, prompt, prefixes)
        scores, at = total.flatten().topk(beams)
        there = scores.isfinite()  # a cut may leave fewer tokens than beams
        scores, at = scores[there], at[there]
        row, token = at // total.shape[1], at % total.shape[1]
        prefixes = torch.cat([prefixes[row], token[:, None]], 1)
    return prefixes[0], float(scores[0] - scores[1]) if len(scores) > 1 else float("inf")


def test_beams_find_what_a_search_over_the_mitigated_probabilities_finds(tiny, name):
    decoder, compared = tiny.acting(name), 0
    for prompt in tiny.prompts[:2]:
        expected, ahead = search(tiny, decoder, prompt, steps=3)
        if ahead < 1e-3:  # rounding decides
            continue
        compared += 1
        found = tiny.generate([decoder], prompt, num_beams=BEAMS, max_new_tokens=3).ids[0]
        assert torch.equal(found, expected)
    assert compared


def test_some_beams_find_another_text_than_greedy_decoding(tiny):
    """Otherwise the test above would say nothing of beams."""
    differ = 0
    for decoder in ("sla", "vcd:beta=0", "agla:alpha=0,beta=0"):
        greedy = tiny.generate([decoder]).ids
        differ += int((tiny.generate([decoder], num_beams=BEAMS).ids != greedy).any())
    assert differ


def test_the_first_token_is_drawn_from_the_mitigated_distribution(tiny, name):
    """2,000 draws of one prompt: frequencies of the 5 likeliest are within 0.05, four standard errors of a half."""
    decoder, count = tiny.acting(name), 2000
    prompt = tiny.prompts[0]
    share = behind(tiny, decoder, prompt, torch.empty(1, 0, dtype=torch.long))[0].exp()
    from veridical.pipelines.engine.logits import Draw

    logits = share.log().expand(count, -1)
    drawn = Draw(blocks=1, batch=count, seed=0)(torch.zeros(count, 1).long(), logits).argmax(1)
    best = share.topk(5)
    found = torch.bincount(drawn, minlength=len(share))[best.indices] / count
    assert float((found - best.values).abs().max()) < 0.05
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 1}
    for seed in range(4):  # and the run draws just these
        assert tiny.generate([decoder], prompt, seed=[seed], **options).ids.item() == int(drawn[seed])
