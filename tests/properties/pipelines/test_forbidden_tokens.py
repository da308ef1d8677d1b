"""Tokens that a generation setting forbids stay forbidden, and logits stay numbers, through every contrast and mix."""

import pytest
import torch

from ...contract.setting import STEPS

DECODERS = ["vcd:beta=0", "vcd", "sla:gamma=1", "sla", "vista", "vsv", "vhr"]


@pytest.mark.parametrize("decoder", DECODERS)
def test_suppressed_tokens_are_never_chosen(tiny, decoder):
    taken = tiny.generate([decoder]).ids.unique().tolist()
    out = tiny.generate([decoder], suppress_tokens=taken, return_logits=True)
    assert not out.logits.isnan().any()
    assert not torch.isin(out.ids, torch.tensor(taken)).any()


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_end_that_may_not_come_yet_does_not_come(tiny, decoder, monkeypatch):
    end = int(tiny.generate([decoder]).ids[0, 0])
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", end)
    out = tiny.generate([decoder], min_new_tokens=STEPS, return_logits=True)
    assert not out.logits.isnan().any()
    assert not (out.ids == end).any()


@pytest.mark.parametrize("decoder", DECODERS)
def test_sampling_never_draws_a_suppressed_token(tiny, decoder):
    forbidden = torch.arange(4, 100)
    out = tiny.generate([decoder], suppress_tokens=forbidden.tolist(), do_sample=True, top_k=0, seed=0)
    assert not torch.isin(out.ids, forbidden).any()
