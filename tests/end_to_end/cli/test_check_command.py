"""`veridical check` from the command line: its report, its exit code, and models that it cannot check."""

import json

import pytest
import torch
import transformers as tf

from veridical.pipelines.model import spec

from ...families.models.tiny_processors import processor
from ...families.setting import setting

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A folder of a tiny LLaVA."""
    path = tmp_path_factory.mktemp("llava")
    setting("llava").model.save_pretrained(path)
    processor("llava").save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def one_model():
    """The command keeps its model; other tests want theirs."""
    yield
    spec.load.cache_clear()


def test_the_embedded_model_passes_with_every_method(veridical):
    shown = veridical("check", "embedded", "--quick")
    assert shown.exit_code == 0, shown.stdout
    verdict = shown.stdout.strip().splitlines()[-1]
    assert "checks hold" in verdict
    assert "these do not" not in verdict
    model = ("LlavaForConditionalGeneration (llava)", "float32", "memory, estimated: 24.4 MB of weights")
    for message in (*model, "transformers", "CPU", "Please", "rounds"):
        assert message in shown.stdout
    assert "NO" not in [line.split("|")[1].strip() for line in shown.stdout.splitlines() if line.startswith("| ")]


def test_costs_and_json(veridical, image_files):
    methods = ("-d", "greedy", "-d", "vcd", "-t", "entropy")
    shown = veridical("check", "embedded", "--image", image_files.a, *methods, "--json")
    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    assert report["holds"]
    assert report["estimate"]["weights"] == 4 * report["model"]["parameters"]
    assert report["image"] == [192, 192]
    assert list(report["costs"]) == ["greedy", "vcd", "entropy"]
    for record in report["costs"].values():
        assert record["first_ms"] > 0
        assert record["peak_mb"] is None or record["peak_mb"] > 20
    assert report["costs"]["vcd"]["acted"] == report["costs"]["vcd"]["steps"] == 8
    names = {one["name"] for one in report["findings"]}
    assert {"neutral vcd = plain", "entropy: decoding = finished text", "readings = eager attentions"} <= names


def test_a_model_that_does_not_see_exits_with_1_and_says_what_does_not_hold(veridical, llava, tmp_path):
    model = tf.AutoModelForImageTextToText.from_pretrained(llava)
    for weight in model.model.multi_modal_projector.parameters():
        torch.nn.init.zeros_(weight)
    model.save_pretrained(tmp_path)
    processor("llava").save_pretrained(tmp_path)
    shown = veridical("check", tmp_path, "--quick", "-d", "vcd")
    assert shown.exit_code == 1
    assert "other pixels change the logits" in shown.stdout.splitlines()[-1]
    assert veridical("check", llava, "--quick", "-d", "vcd").exit_code == 0


def test_half_precision_is_judged_by_its_own_rounding(veridical):
    shown = veridical("check", "embedded", "--quick", "--dtype", "bf16", "-d", "vista", "--json")
    report = json.loads(shown.stdout)
    assert report["holds"], [one for one in report["findings"] if not one["holds"]]
    assert report["model"]["dtype"] == "bfloat16"
    assert "bfloat16 rounds each operation to 7.8e-03" in report["tolerances"]


# ---------------------------------------------------------------------- what cannot be checked


def test_a_wrong_image_token_is_refused_or_does_not_hold(veridical, llava, tmp_path):
    for file in llava.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["image_token_index"] = config["image_token_id"] = 40
    (tmp_path / "config.json").write_text(json.dumps(config))
    shown = veridical("check", tmp_path, "--quick", "-d", "vcd")
    assert shown.exit_code == 1
    assert "NO | image mask" in shown.stdout


def test_a_model_without_images_is_refused_in_one_message(veridical, tmp_path):
    tf.LlamaConfig().save_pretrained(tmp_path)
    shown = veridical("check", tmp_path)
    assert shown.exit_code == 2
    assert "reads no images" in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1


def test_a_model_with_cross_attention_is_refused_with_the_reason(veridical, tmp_path):
    config = tf.MllamaConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
            "attention_heads": 2, "image_size": 32, "patch_size": 16, "vision_output_dim": 64, "max_num_tiles": 2,
            "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2]],
        },
        text_config={
            "num_hidden_layers": 4, "cross_attention_layers": [1], "hidden_size": 64, "vocab_size": 128,
            "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
        },
        image_token_index=2,
    )  # fmt: skip
    tf.MllamaForConditionalGeneration(config).save_pretrained(tmp_path)
    processor("llava").save_pretrained(tmp_path)
    shown = veridical("check", tmp_path)
    assert shown.exit_code == 2
    assert "cross-attention" in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("gone", ["processor", "weights"])
def test_missing_files_are_named(veridical, llava, tmp_path, gone):
    for file in llava.iterdir():
        if not file.name.startswith("processor_config" if gone == "processor" else "model"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    shown = veridical("check", tmp_path)
    assert shown.exit_code == 2
    assert {"processor": "processor_config.json", "weights": "safetensors"}[gone] in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1


def test_a_way_of_loading_that_this_machine_lacks_is_refused_in_one_message(veridical, monkeypatch):
    monkeypatch.setattr("veridical.pipelines.model.quantization.find_spec", lambda name: None)
    for option, message in (
        (("--quantization", "bnb-4bit"), "pip install bitsandbytes"),
        (("--attention", "flash_attention_2"), "use 'sdpa'"),
    ):
        shown = veridical("check", "embedded", *option)
        assert shown.exit_code == 2
        assert message in shown.stderr
        assert len(shown.stderr.strip().splitlines()) == 1


def test_a_hub_id_while_offline_says_so(veridical, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown = veridical("check", "nobody/no-such-model")
    assert shown.exit_code == 2
    assert "HF_HUB_OFFLINE is set" in shown.stderr


def test_a_method_that_does_not_exist_is_known_before_the_model_is_loaded(veridical):
    shown = veridical("check", "nobody/no-such-model", "-d", "vdc")
    assert shown.exit_code == 2
    assert 'Did you mean "vcd"?' in shown.stderr


def test_images_predicts_the_time_of_a_job_and_checks_nothing(veridical):
    shown = veridical("check", "embedded", "--images", "1000", "-b", "4", "--max-new-tokens", "20", "--json")
    assert shown.exit_code == 0, shown.stdout
    (found,) = json.loads(shown.stdout)
    assert (found["decoder"], found["images"], found["batches"]) == ("greedy", 1000, 250)
    assert 0 < found["low"] < found["seconds"] < found["high"]


def test_a_prediction_refuses_detectors(veridical):
    shown = veridical("check", "embedded", "--images", "10", "-t", "entropy")
    assert shown.exit_code == 2
    assert "predicts the time of decoders alone" in " ".join(shown.stderr.replace("│", " ").split())
