"""The command line on image files: what it prints, and how it refuses bad input."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import veridical as package
from veridical.cli import errors
from veridical.decoders import NAMES as DECODERS
from veridical.detectors import NAMES as DETECTORS
from veridical.flows.captioning import run
from veridical.flows.training.embedded import build, training
from veridical.flows.training.embedded import run as embedded_run
from veridical.models import EMBEDDED

COMMANDS = ("list", "caption", "answer", "evaluate", "train-embedded", "train-matcher")


def test_list_prints_every_registered_method(veridical):
    for arguments in (["list"], ["list", "--long"]):
        shown = veridical(*arguments)
        assert shown.exit_code == 0
        lines = [line.split(":")[0].split(" ")[0] for line in shown.stdout.splitlines()]
        assert {*DECODERS, *DETECTORS, "chair", "pope"} <= set(lines)


def test_the_version_needs_no_command(veridical):
    shown = veridical("--version")
    assert (shown.exit_code, shown.stdout) == (0, f"veridical {package.__version__}\n")


@pytest.mark.parametrize("command", [*([c] for c in COMMANDS), ["data", "world"], []])
def test_every_help_has_worked_examples(veridical, command):
    shown = veridical(*command, "--help")
    assert shown.exit_code == 0
    assert "Examples" in shown.stdout
    assert " ".join(["veridical", *command]) in shown.stdout.split("Examples")[1]


@pytest.mark.parametrize(
    ("command", "without"), [("--help", "torch prefect transformers numpy"), ("list", "torch prefect transformers")]
)
def test_help_and_the_list_need_neither_torch_nor_prefect_nor_a_terminal_with_dashes(command, without):
    code = (
        f"import sys\nsys.argv = ['veridical', '{command}']\nfrom veridical.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code or 0\n"
        f"print(code, sorted(set('{without}'.split()) & set(sys.modules)))"
    )
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    assert shown.stdout.splitlines()[-1] == "0 []"


def test_notes_are_ours_alone_and_each_once(capsys):
    with errors.notes():
        for _ in range(2):
            warnings.warn("a library's", UserWarning, stacklevel=1)
            warnings.warn("ours", run.LeftOut, stacklevel=1)
    assert capsys.readouterr().err == "note: ours\n"


def test_one_caption_is_printed_alone(veridical, image_files):
    shown = veridical("caption", image_files.a)
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) == 1
    assert shown.stdout.strip().endswith(".")


def test_several_decoders_stand_under_their_names(veridical, image_files):
    shown = veridical("caption", image_files.a, "-d", "greedy", "-d", "vcd:alpha=0.5", "-d", "vsv:strength=0.1+vcd")
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0
    assert lines[0] == str(image_files.a)
    assert [line.split(": ")[0].strip() for line in lines[1:]] == ["greedy", "vcd:alpha=0.5", "vsv:strength=0.1+vcd"]


def test_a_detector_rates_every_word(veridical, image_files):
    plain = veridical("caption", image_files.a).stdout.split()
    rated = veridical("caption", image_files.a, "-t", "lookback_lens").stdout.split()
    assert rated[0] == "[lookback_lens]"
    assert [word.rpartition("·")[0] for word in rated[1:]] == plain
    assert all(0 <= float(word.rpartition("·")[2]) <= 1 for word in rated[1:])


def test_json_has_what_repeats_the_answer(veridical, image_files):
    both = (image_files.a, image_files.b)
    shown = veridical("answer", *both, "-q", "Is there a dog in the image?", "-d", "vcd", "--json")
    answers = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [answer["image"] for answer in answers] == [str(image_files.a), str(image_files.b)]
    for answer in answers:
        assert answer["settings"]["question"] == "Is there a dog in the image?"
        assert answer["settings"]["decoders"] == ["VCD(alpha=1.0, beta=0.1, noise_step=500, seed=0)"]
        assert answer["acted"]["vcd"]["acted"] == answer["acted"]["vcd"]["steps"] > 0


def test_sampling_repeats_with_its_seed_whatever_the_batches_are(veridical, image_files):
    images = [image_files.a, image_files.b, image_files.a]
    options = ("--sample", "--temperature", "1.5", "--max-new-tokens", "24")
    one, other, third = (
        veridical("caption", *images, *options, "--seed", seed, "-b", size).stdout
        for seed, size in ((1, 3), (1, 2), (2, 3))
    )
    assert one == other != third
    assert one.splitlines()[1] != one.splitlines()[5], "each image is drawn with a seed of its own"


def test_a_bad_image_among_several_becomes_an_error_row(veridical, image_files):
    shown = veridical("caption", image_files.a, image_files.cut, image_files.none, image_files.b)
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 1
    assert lines[0::2] == [str(p) for p in (image_files.a, image_files.cut, image_files.none, image_files.b)]
    assert "truncated" in lines[3]
    assert "does not exist" in lines[5]
    assert lines[7].strip()
    assert "error" not in lines[1] + lines[7]
    assert shown.stderr.splitlines()[-1] == "Error: 2 of 4 images could not be used."
    in_json = veridical("caption", image_files.none, image_files.b, "--json").stdout.splitlines()
    assert ["does not exist" in (json.loads(line)["error"] or "") for line in in_json] == [True, False]


# -- bad input -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, Path]:
    """Model folders that cannot be used."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models")
    tiny = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(tiny).save_pretrained(folder / "text")
    shutil.copytree(EMBEDDED, folder / "half", ignore=shutil.ignore_patterns("processor_config.json"))
    return {"text_only": folder / "text", "no_processor": folder / "half", "no_model": folder / "nothing"}


BAD = {
    "unknown decoder": (["caption", "{a}", "-d", "vdc"], ['no decoder "vdc"', 'Did you mean "vcd"?', "Known: "]),
    "unknown decoder in a chain": (["caption", "{a}", "-d", "vcd+vits"], ['no decoder "vits"']),
    "unknown detector": (["caption", "{a}", "-t", "entropi"], ['Did you mean "entropy"?']),
    "value out of range": (["caption", "{a}", "-d", "vcd:beta=3"], ["beta=3 is outside 0 to 1 (plausibility cut)."]),
    "unknown field": (["caption", "{a}", "-d", "vcd:gamma=3"], ["vcd has no field 'gamma'", "alpha=1.0"]),
    "no value": (["caption", "{a}", "-d", "vcd:beta"], ["is not field=value"]),
    "window too long": (["caption", "{a}", "-d", "sla:window=99"], ["window=99", "this model has"]),
    "missing image": (["caption", "{none}"], ["none.png does not exist"]),
    "truncated image": (["caption", "{cut}"], ["cut.png cannot be read as an image", "truncated"]),
    "no image": (["answer", "{text}", "-q", "What?"], ["text.png is not an image"]),
    "text-only model": (["caption", "{a}", "-m", "{text_only}"], ["'llama' model, which reads no images"]),
    "no processor": (["caption", "{a}", "-m", "{no_processor}"], ["no processor", "processor_config.json"]),
    "no model folder": (["caption", "{a}", "-m", "{no_model}"], ["nothing: it does not exist", "'embedded'"]),
    "no model on the Hub": (["caption", "{a}", "-m", "nobody/nothing"], ["no model", "neither 'embedded'", "OFFLINE"]),
    "no GPU": (["caption", "{a}", "--device", "cuda:77"], ["cuda:77"]),
    "sampling settings alone": (["caption", "{a}", "--temperature", "2"], ["add --sample"]),
    "beams that draw": (["caption", "{a}", "--sample", "--num-beams", "2"], ["choose one of the two"]),
    "unknown benchmark": (["evaluate", "--out", "{out}", "--benchmark", "pop"], ["Known: amber, chair"]),
    "decoder of an evaluation": (["evaluate", "--out", "{out}", "-d", "vdc"], ['Did you mean "vcd"?']),
    "no COCO folder": (["evaluate", "--out", "{out}", "--no-prefect", "--coco", "{out}/x"], ["instances_<split>.json"]),
    "no synonyms": (
        ["evaluate", "--out", "{out}", "--no-prefect", "--limit", 1, "--benchmark", "chair", "--synonyms", "{none}"],
        ["no synonym file"],
    ),
    "unknown split": (["data", "world", "--split", "dev", "--out", "{out}"], ["train, validation, test"]),
    "no organism to resume": (["train-organism", "--out", "{out}/m", "--resume"], ["nothing to resume"]),
    "nothing to resume": (["train-embedded", "--out", "{out}/m", "--resume"], ["nothing to resume"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_exit_code_2(veridical, image_files, broken, tmp_path, monkeypatch, case):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments, expected = BAD[case]
    places = {**vars(image_files), **broken, "out": tmp_path / "out"}
    shown = veridical(*(str(argument).format(**places) for argument in arguments))
    assert shown.exit_code == 2, shown.output
    assert shown.stderr.count("Error: ") == 1
    assert shown.stderr.splitlines()[-1].startswith("Error: ")
    assert all(part in shown.stderr for part in expected), shown.stderr
    assert "Traceback" not in shown.output
    assert not shown.stdout
    assert not (tmp_path / "out" / "results.json").exists()


def test_debug_shows_the_traceback(image_files):
    command = [sys.executable, "-c", "from veridical.cli.main import main; main()", "--debug", "caption"]
    shown = subprocess.run([*command, str(image_files.none)], capture_output=True, text=True, check=False)
    assert shown.returncode != 0
    assert "Traceback" in shown.stderr
    assert "BadImage" in shown.stderr


def test_an_unexpected_error_is_one_line_too(veridical, image_files, monkeypatch):
    monkeypatch.setattr("veridical.cli.answering.load", lambda spec: {}["weights"])
    shown = veridical("caption", image_files.a)
    assert shown.exit_code == 1
    assert "unexpected KeyError: 'weights'" in shown.stderr
    assert "Traceback" not in shown.output


def test_training_leaves_a_model_that_loads_and_a_state_to_resume_from(veridical, tmp_path, image_files, monkeypatch):
    monkeypatch.setattr(build, "tokenizer", partial(build.tokenizer, scenes=40))
    train = ("train-embedded", "--out", tmp_path / "mine", "--device", "cpu", "--examined", 6, "--lessons", 32)
    train = (*train, "--images")
    assert veridical(*train, 32).exit_code == 0
    assert veridical("caption", image_files.a, "-m", tmp_path / "mine", "--max-new-tokens", 2).exit_code == 0
    state = (tmp_path / "mine-training" / "state.safetensors").read_bytes()
    again = veridical(*train, 32)
    assert (again.exit_code, "Add --resume" in again.stderr) == (2, True)
    other = veridical(*train, 64, "--resume")
    assert (other.exit_code, "images was 32, now 64" in other.stderr) == (2, True)
    assert veridical(*train, 32, "--resume").exit_code == 0
    assert (tmp_path / "mine-training" / "state.safetensors").read_bytes() == state, "there was nothing left to train"


def test_the_state_of_an_earlier_version_with_another_name_for_images_can_be_resumed(tmp_path):
    recipe = {**dataclasses.asdict(training.Recipe(images=32)), "pictures": 32}
    del recipe["images"]
    save_file({"a": torch.zeros(1)}, tmp_path / "state", metadata={"recipe": json.dumps(recipe)})
    embedded_run._check_recipe(tmp_path / "state", dataclasses.asdict(training.Recipe(images=32)))
    with pytest.raises(ValueError, match="images was 32, now 64"):
        embedded_run._check_recipe(tmp_path / "state", dataclasses.asdict(training.Recipe(images=64)))
