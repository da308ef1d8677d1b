"""InstructBLIP hands embedded prompts to its language model's generate: its settings count, and mitigate must say no.

Its processor puts the image in front of padded text, and asks the Q-Former something of another length.
"""

import copy

import pytest
import torch

import veridical
from veridical.decoders.vcd import VCD
from veridical.pipelines.engine.declarations import Branch, LogitsEdit
from veridical.pipelines.engine.run import prefill

from ..contract.setting import Declares, difference
from .models.tiny_prompts import words
from .setting import forward, setting, transformers_generate, transformers_logits


@pytest.fixture
def apart():
    """The tiny InstructBLIP, whose two generation configurations name different end and pad tokens."""
    case = setting("instructblip")
    model = case.model
    kept = {part: copy.deepcopy(part.generation_config) for part in (model, model.language_model)}
    first = case.plain()[0].argmax(-1).tolist()
    model.language_model.generation_config.eos_token_id = first[1]
    model.language_model.generation_config.pad_token_id = 3
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = first[0], 4
    yield case, first
    for part, config in kept.items():
        part.generation_config = config


def test_end_and_pad_tokens_are_those_that_generation_uses(apart):
    case, first = apart
    lvlm = veridical.LVLM(case.model)
    assert lvlm.end_tokens == (first[1],)
    assert lvlm.pad_token == 3


def test_a_text_ends_where_transformers_ends_it(apart):
    case, first = apart
    theirs = transformers_generate(case.model, case.prompts[0]).sequences[0]
    ours = veridical.generate(veridical.LVLM(case.model), case.prompts[0], max_new_tokens=3, do_sample=False).ids[0]
    assert first[0] != first[1]
    assert ours.tolist() == first[:2] == theirs[-2:].tolist()


def test_beams_of_the_language_models_settings_are_counted(apart):
    case, _ = apart
    case.model.language_model.generation_config.num_beams = 2
    with pytest.raises(ValueError, match="num_beams > 1"):
        veridical.generate(veridical.LVLM(case.model), case.inputs, return_logits=True, max_new_tokens=1)


def test_mitigate_says_what_to_use_instead():
    case = setting("instructblip")
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*embedded already.*Use veridical\.generate"):
        case.model.generate(**case.inputs, max_new_tokens=1, custom_generate=veridical.mitigate([VCD()]))


def test_what_mitigate_recommends_works():
    case = setting("instructblip")
    out = case.generate([VCD()], return_logits=True)
    assert not torch.equal(out.logits, case.plain())


# ---------------------------------------------------------------------- prompts and their padding


def test_instructblip_padding_between_image_and_text_is_counted_by_no_position():
    """Its processor pads the text and puts the image in front; a pass that counts padding sees a gap."""
    case = setting("instructblip", torch.float64)
    inside = case.inputs["attention_mask"][1]
    assert inside[0] == inside[-1] == 1
    assert (inside == 0).any()
    counted = forward(case.model, case.inputs).logits[:, -1].float()
    assert difference(counted[1], case.plain()[1, 0]) > 1e-3, "padding does not show: the test would see nothing"
    assert difference(prefill(case.lvlm, case.inputs, []).branches["main"].float(), case.plain()[:, 0]) <= 1e-5


def test_a_branch_may_ask_the_q_former_something_longer():
    """Q-Former tokens are rows of their own length, padded on the right as BERT's tokenizer does."""
    case = setting("instructblip", torch.float64)
    requests = torch.tensor([words(14, 1), words(14, 2)])
    other = {**case.inputs, "qformer_input_ids": requests, "qformer_attention_mask": torch.ones_like(requests)}
    seen = []
    see = LogitsEdit(lambda logits, step: seen.append(step.branches["other"]) or logits)
    out = case.generate([Declares([Branch("other", other), see])], return_logits=True)
    assert difference(out.logits, case.plain()) <= 1e-6
    assert difference(seen[0].float(), transformers_logits(case.model, other)[:, 0]) <= 1e-6
    assert difference(seen[0].float(), case.plain()[:, 0]) > 1e-3
