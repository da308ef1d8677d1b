"""Images and questions through a real processor of every family, to a text."""

import pytest
import torch

import veridical
from veridical.pipelines.model import families

from .image_files import IMAGES, QUESTIONS, image
from .models.tiny_families import FAMILIES
from .models.tiny_processors import IMAGE_TEXTS, MISSING, processor
from .models.tiny_weights import END, FAKE, GLOBAL, IMAGE, ROW, START
from .setting import setting

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")

AROUND = {"internvl": {START, END}, "smolvlm": {FAKE, GLOBAL, *range(ROW, ROW + 4)},
          **{name: {START, END} for name in ("gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")}}  # fmt: skip
AROUND["idefics3"] = AROUND["smolvlm"]


@pytest.fixture(params=FAMILIES, scope="module")
def read(request):
    """A tiny model with its processor, float64."""
    if request.param in MISSING:
        pytest.skip(MISSING[request.param])
    case = setting(request.param, torch.float64)
    return case, veridical.LVLM(case.model, processor(request.param), name=request.param)


def test_processors_return_what_the_hand_made_inputs_have(read):
    """The other tests here build inputs by hand; this keeps them what users have. Both in names and dimensions."""
    case, lvlm = read
    found = lvlm.prepare(IMAGES, QUESTIONS)
    assert {name: value.dim() for name, value in found.items()} == {
        name: value.dim() for name, value in case.inputs.items()
    }
    if "token_type_ids" in found:
        image = found["input_ids"] == IMAGE
        assert found["token_type_ids"][image].unique().tolist() == [case.family.token_types[1]]
    padded_inside = bool((found["attention_mask"][:, 0] == 1).all())
    assert padded_inside == case.family.pads_inside


def test_captions_and_answers_come_from_the_image_and_the_question(read):
    _, lvlm = read
    options = {"max_new_tokens": 4}
    one = lvlm.answer(IMAGES, QUESTIONS, **options)
    assert all(len(answer.tokens) == 4 for answer in one)
    assert all(question in answer.settings["prompt"] for question, answer in zip(QUESTIONS, one, strict=True))
    other = lvlm.prepare([image(60, 40, 9), IMAGES[1]], QUESTIONS)
    first = veridical.generate(lvlm, lvlm.prepare(IMAGES, QUESTIONS), return_logits=True, max_new_tokens=1)
    moved = (veridical.generate(lvlm, other, return_logits=True, max_new_tokens=1).logits - first.logits).abs()
    assert moved[0].max() > 1e-3
    assert moved[1].max() < 1e-5


def test_a_batch_of_images_is_each_image_alone(read):
    _, lvlm = read
    options = {"decoders": ["vcd", "vsv", "icd:beta=0"], "detectors": ["lookback_lens"], "max_new_tokens": 3}
    together = lvlm.answer(IMAGES, QUESTIONS, **options)
    alone = lvlm.answer(IMAGES, QUESTIONS, batch_size=1, **options)
    for one, two in zip(together, alone, strict=True):
        assert one.tokens == two.tokens
        assert one.risk["lookback_lens"] == pytest.approx(two.risk["lookback_lens"], abs=1e-5)


def test_image_free_prompts_are_those_of_the_text_alone(read):
    """By the real tokenizer's names: nothing that stands around an image is left."""
    case, lvlm = read
    free = lvlm.image_free(lvlm.prepare(IMAGES, QUESTIONS))
    assert not torch.isin(free["input_ids"], torch.tensor([IMAGE, *AROUND.get(case.family.name, ())])).any()
    assert set(families.around(lvlm.model, lvlm.processor.tokenizer)) == AROUND.get(case.family.name, set())
    for row, question in enumerate(QUESTIONS):
        assert question in lvlm.processor.tokenizer.decode(free["input_ids"][row])


def test_a_processor_without_chat_template_takes_the_familys(read):
    case, lvlm = read
    if IMAGE_TEXTS.get(case.family.name, "<image>") is not None:
        assert lvlm.processor.chat_template
        return
    assert lvlm.processor.chat_template is None
    prompt = lvlm.answer(IMAGES[0], QUESTIONS[0], max_new_tokens=1)[0].settings["prompt"]
    assert prompt == {"paligemma": f"<image>{QUESTIONS[0]}", "instructblip": QUESTIONS[0]}[case.family.name]


def test_a_folder_of_every_family_loads_and_answers_the_same(read, tmp_path):
    case = setting(read[0].family.name)
    lvlm = veridical.LVLM(case.model, read[1].processor)
    case.model.save_pretrained(tmp_path)
    lvlm.processor.save_pretrained(tmp_path)
    loaded = veridical.load(tmp_path)
    loaded.model.generation_config.eos_token_id = None
    text = lambda one: one.answer(IMAGES, QUESTIONS, decoders=["vista"], max_new_tokens=3)
    assert [answer.tokens for answer in text(loaded)] == [answer.tokens for answer in text(lvlm)]
    assert [answer.text for answer in text(loaded)] == [answer.text for answer in text(lvlm)]
