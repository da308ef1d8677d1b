"""How much memory a model needs, against arithmetic on LLaVA-1.5-7B's shape and against models that are here."""

import warnings

import pytest
import torch
import transformers as tf

import veridical
from veridical.models import EMBEDDED
from veridical.pipelines.model import memory
from veridical.pipelines.model.memory import Need, Size, Tight, TooLarge

from ...parity.tiny import tiny_llava

GB = 10**9


@pytest.fixture(scope="module")
def config():
    """LLaVA-1.5-7B: CLIP ViT-L/14 at 336 pixels, a projector of two layers, Vicuna 7B with 64 more words."""
    return tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14,
        ),
        text_config=tf.LlamaConfig(vocab_size=32064),
    )  # fmt: skip


@pytest.fixture(scope="module")
def seven(config):
    return Size.of(config)


def test_llava_7b_has_the_parameters_that_its_layers_add_up_to(seven):
    block = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    language = 32 * block + 4096 + 2 * 32064 * 4096
    tower = 24 * (4 * 1024**2 + 4 * 1024 + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024)
    tower += 1024 + 3 * 14**2 * 1024 + (24**2 + 1) * 1024 + 4 * 1024
    projector = 1024 * 4096 + 4096 + 4096**2 + 4096
    assert seven.parameters == language + tower + projector == 7_063_427_072


def test_llava_7b_in_half_precision_is_the_papers_14_gb_and_half_a_megabyte_per_token(seven):
    one, two = seven.need(torch.float16, tokens=1000), seven.need(torch.float16, tokens=1000, rows=2)
    assert one.weights == 2 * 7_063_427_072
    assert one.cache == 1000 * 32 * 2 * 4096 * 2 == 1000 * 2**19
    assert one.work == 1000 * (4 * 4096 + 3 * 11008) * 2 + 12 * 32064
    assert (two.weights, two.cache, two.work) == (one.weights, 2 * one.cache, 2 * one.work)
    assert one.total == one.weights + one.cache + one.work


def test_quantised_weights_are_those_of_linear_layers_below_the_head(seven):
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 24 * (4 * 1024**2 + 2 * 1024 * 4096) + 1024 * 4096 + 4096**2
    assert seven.linear == linear
    rest = 2 * (7_063_427_072 - linear)
    assert seven.need(torch.bfloat16, "bnb-8bit").weights == rest + linear
    assert seven.need(torch.bfloat16, "bnb-4bit").weights == rest + linear * 9 // 16
    four = type("Config", (), {"load_in_4bit": True})()
    assert seven.need(torch.bfloat16, four) == seven.need(torch.bfloat16, "bnb-4bit")


def test_grouped_keys_make_a_smaller_cache():
    model = tiny_llava(8, 2)
    text = model.config.get_text_config()
    need = Size.of(model.config).need(torch.float32, tokens=10)
    assert need.cache == 10 * text.num_hidden_layers * 2 * 2 * (text.hidden_size // 8) * 4


def test_the_weights_of_a_loaded_model_and_of_its_file_are_what_was_counted():
    lvlm = veridical.load("embedded", device="cpu")
    counted = Size.of(lvlm.model.config).need(torch.float32).weights
    assert counted == sum(weight.numel() * weight.element_size() for weight in lvlm.model.parameters())
    on_disk = (EMBEDDED / "model.safetensors").stat().st_size
    assert 0 <= on_disk - counted // 2 < 50_000, "saved in bfloat16, and a header"


def test_the_cache_of_a_run_is_what_was_counted():
    model = tiny_llava(8, 2)
    ids = torch.randint(10, 60, (3, 7))
    cache = model(input_ids=ids, use_cache=True).past_key_values
    found = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) * 4
    assert found == Size.of(model.config).need(torch.float32, rows=3, tokens=7).cache


# ---------------------------------------------------------------------- refusals


@pytest.fixture
def room(monkeypatch):
    """Sets how much is free."""
    return lambda count: monkeypatch.setattr(memory, "free_ram", lambda: count)


def test_weights_that_do_not_fit_are_refused_with_what_would(room, config):
    room(20 * GB)
    with pytest.raises(TooLarge) as caught:
        memory.check("llava", config, "cpu", torch.float32)
    message = str(caught.value)
    needs = "28.3 GB for its weights and about 2.6 GB to run 1 row of 2048 tokens"
    assert message.startswith(f"llava in float32 needs {needs}")
    assert "the CPU has 20.0 GB free" in message
    assert "Would fit: dtype='bf16' (15.4 GB); dtype='bf16', quantization='torchao-int8' (8.6 GB)." in message
    assert "check_memory=False" in message


def test_what_does_not_fit_either_is_not_proposed(room, config):
    room(10 * GB)
    with pytest.raises(TooLarge, match=r"Would fit: dtype='bf16', quantization='torchao-int8' \(8.6 GB\)\. check"):
        memory.check("llava", config, "cpu", torch.float32)
    room(1 * GB)
    with pytest.raises(TooLarge, match="Nothing smaller of it would fit"):
        memory.check("llava", config, "cpu", torch.float32)


def test_a_run_that_may_not_fit_is_a_warning_and_fewer_rows_are_proposed(room, config):
    room(30 * GB)
    with pytest.warns(Tight, match=r"about 20\.4 GB to run 8 rows.*Would fit: "):
        memory.check("llava", config, "cpu", torch.float32, rows=8)
    room(40 * GB)
    with pytest.warns(Tight, match=r"Would fit: 4 rows instead of 8 \(38\.5 GB\)"):
        memory.check("llava", config, "cpu", torch.float32, rows=8)


def test_what_fits_is_silent(room, config):
    room(31 * GB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(memory.check("llava", config, "cpu", torch.float32), Need)


def test_load_refuses_before_a_weight_is_read_and_can_be_told_not_to(room, monkeypatch):
    room(1_000_000)
    read = []
    original = tf.AutoModelForImageTextToText.from_pretrained
    monkeypatch.setattr(
        tf.AutoModelForImageTextToText, "from_pretrained", lambda *a, **k: read.append(1) or original(*a, **k)
    )
    with pytest.raises(TooLarge, match=r"embedded in float32 needs 24\.4 MB .*1\.0 MB free"):
        veridical.load("embedded", device="cpu")
    assert not read
    assert veridical.load("embedded", device="cpu", check_memory=False).name == "embedded"
    assert read


def test_a_device_whose_memory_is_not_known_is_not_checked(config):
    assert memory.check("llava", config, "meta", torch.float32) is None
