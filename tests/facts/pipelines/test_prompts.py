"""The papers' prompts: their words, letter by letter, and who may use which."""

import inspect

import pytest

from veridical.cli.validate import prompt_fields
from veridical.pipelines.inputs import prompts
from veridical.pipelines.inputs.prepare import prompt_text
from veridical.pipelines.registry import UnknownName


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("@opera", "Please describe this image in detail."),
        ("@detail", "Please describe this image in detail."),
        ("@vista", "Please help me describe the image in detail."),
        ("@pai", "Please help me describe the image in detail."),
        ("@helpd", "Describe the content of the image."),
        ("@amber", "Describe this image."),
        ("What is this?", "What is this?"),
    ],
)
def test_caption_prompts_are_the_papers_words(name, caption):
    assert prompts.caption_prompt(name) == caption


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("@opera", "Is it red?"),
        ("@vcd", "Is it red? Please answer this question with one word."),
        ("@llava", "Is it red?\nAnswer the question using a single word or phrase."),
        ("@vlmevalkit", "Is it red? Please answer yes or no."),
        ("@vicrop-blip", "Question: Is it red? Short answer:"),
        ("Look. {question}", "Look. Is it red?"),
        (None, "Is it red?"),
    ],
)
def test_frames_are_the_papers_words(name, wanted):
    assert prompts.framed("Is it red?", name) == wanted


def test_every_prompt_has_a_source_and_something_to_say():
    for name, prompt in prompts.PROMPTS.items():
        assert prompt.source, name
        assert prompt.caption or prompt.frame, name
        assert prompt.frame is None or prompt.frame.count(prompts.SLOT) == 1, name


def test_the_default_caption_prompt_is_named_detail():
    from veridical.datasets.captions import DETAIL_PROMPT
    from veridical.pipelines.lvlm import LVLM

    default = inspect.signature(LVLM.caption).parameters["prompt"].default
    assert prompts.caption_prompt("@detail") == DETAIL_PROMPT == default


def test_the_suffix_of_popes_protocols_is_that_of_the_prompt_of_the_same_name():
    """Two ways to ask for the same words: --protocol, which also says how answers are read, and --prompt."""
    from veridical.metrics.pope import PROMPT_SUFFIX

    for protocol, name in (("opera", "@opera"), ("vcd", "@vcd"), ("lmms_eval", "@llava")):
        assert f"Is it?{PROMPT_SUFFIX[protocol]}" == prompts.framed("Is it?", name)


# ---------------------------------------------------------------------- wrong input


def test_a_misspelt_name_is_answered_with_a_near_one():
    with pytest.raises(UnknownName, match=r'no prompt "@vist"[.] Did you mean "@vista"[?] Known: @agla'):
        prompts.caption_prompt("@vist")


def test_a_frame_asks_for_no_caption_and_a_caption_prompt_frames_nothing():
    with pytest.raises(ValueError, match="'@vcd' frames questions and asks for no caption; possible: @detail"):
        prompts.caption_prompt("@vcd")
    with pytest.raises(ValueError, match="'@vista' asks for a caption and frames no question; possible: @opera"):
        prompts.framed("Is it?", "@vista")


def test_a_benchmark_takes_the_first_prompt_of_its_kind():
    fields = prompt_fields(["@vista", "@opera", "@vcd"], "Be brief.", ["pope", "chair"])
    assert fields == {
        "prompt": "Please help me describe the image in detail.", "suffix": "", "prompt_name": "@vista @opera @vcd",
        "system": "Be brief.",
    }  # fmt: skip
    assert prompt_fields([], None, ["pope"]) == {}
    assert prompt_fields(["{question} Yes or no?"], None, ["pope"])["suffix"] == " Yes or no?"


def test_a_prompt_that_no_benchmark_can_use_is_refused():
    with pytest.raises(ValueError, match="'@vcd' frames questions, which chair cannot use"):
        prompt_fields(["@vcd"], None, ["chair"])
    with pytest.raises(ValueError, match="'@vista' requests a caption, which pope cannot use"):
        prompt_fields(["@vista"], None, ["pope"])
    with pytest.raises(ValueError, match="'@vicrop-blip' puts 'Question: ' in front of the question"):
        prompt_fields(["@vicrop-blip"], None, ["pope"])


# ---------------------------------------------------------------------- templates


class Processor:
    """As much of a processor as writes prompts."""

    chat_template = "a template"

    def __init__(self, form):
        self.form = form

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
        return self.form(texts)


def test_a_system_prompt_that_a_chat_template_leaves_out_is_refused():
    whole, deaf = Processor(" ".join), Processor(lambda texts: texts[-1])
    assert prompt_text(whole, "Is it?", system="Be brief.") == "Be brief. Is it?"
    assert prompt_text(deaf, "Is it?") == "Is it?"
    with pytest.raises(ValueError, match="leaves the system prompt out"):
        prompt_text(deaf, "Is it?", system="Be brief.")
