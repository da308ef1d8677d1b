"""The exact prompt is in every result, and a changed one is another run."""

import json

import pytest

from ...families.models.tiny_processors import processor
from ...families.setting import setting


def answers(shown):
    assert shown.exit_code == 0, shown.stderr
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_a_caption_says_its_exact_prompt_and_system_prompt(veridical, image_files):
    words = ("caption", image_files.a, "--json", "--max-new-tokens", 4)
    (plain,) = answers(veridical(*words))
    (other,) = answers(veridical(*words, "--prompt", "@vista", "--system", "Be brief."))
    assert plain["settings"]["prompt"] == "<s>USER: <image>\nPlease describe this image in detail. ASSISTANT:"
    assert plain["settings"]["system"] is None
    assert other["settings"]["prompt"] == (
        "<s>Be brief. USER: <image>\nPlease help me describe the image in detail. ASSISTANT:"
    )
    assert other["settings"]["system"] == "Be brief."


def test_an_answer_says_its_exact_prompt(veridical, image_files):
    requests = ("answer", image_files.a, "-q", "Is there a dog?", "--prompt", "@vcd", "--system", "Be sure.", "--json")
    (found,) = answers(veridical(*requests, "--max-new-tokens", 2))
    assert found["settings"]["question"] == "Is there a dog? Please answer this question with one word."
    assert found["settings"]["prompt"] == (
        "<s>Be sure. USER: <image>\nIs there a dog? Please answer this question with one word. ASSISTANT:"
    )


def test_a_named_prompt_works_from_python_too(image_files):
    import veridical

    lvlm = veridical.load("embedded")
    found = lvlm.caption(image_files.a, prompt="@amber", max_new_tokens=2)[0]
    assert found.settings["question"] == "Describe this image."


def test_wrong_prompts_are_refused_before_anything_is_loaded(veridical, image_files):
    for arguments, message in (
        (("caption", image_files.a, "--prompt", "@vist", "-m", "nobody/none"), 'Did you mean "@vista"?'),
        (("caption", image_files.a, "--prompt", "@vcd", "-m", "nobody/none"), "asks for no caption"),
        (("answer", image_files.a, "-q", "x", "--prompt", "@vista", "-m", "nobody/none"), "frames no question"),
    ):
        shown = veridical(*arguments)
        assert shown.exit_code == 2
        assert message in shown.stderr


def test_the_list_has_every_prompt_with_its_words(veridical):
    from veridical.pipelines.inputs.prompts import PROMPTS

    shown = veridical("list", "--long").stdout
    for name, prompt in PROMPTS.items():
        assert f"@{name}\n" in shown
        assert prompt.source in shown
        assert prompt.caption is None or repr(prompt.caption) in shown


@pytest.mark.parametrize(
    "changed",
    [
        ("--prompt", "@vcd", "--system", "Be brief."),
        ("--prompt", "@opera", "--system", "Be long."),
        ("--prompt", "@opera"),
    ],
    ids=["prompt", "system", "no system"],
)
def test_a_changed_prompt_does_not_go_on_with_a_run(veridical, tmp_path, changed):
    run = ("evaluate", "--no-prefect", "--benchmark", "pope", "--limit", 1, "-d", "greedy", "--out", tmp_path)
    begun = ("--prompt", "@opera", "--system", "Be brief.")
    assert veridical(*run, *begun).exit_code == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["request"]["source"]["system"] == "Be brief."
    assert manifest["request"]["source"]["prompt_name"] == "@opera"
    exact = manifest["benchmarks"]["pope"]["prompt"]
    assert exact.startswith("<s>Be brief. USER: <image>\nIs there")
    assert exact == manifest["settings"]["pope"]["greedy"]["prompt"]
    assert veridical(*run, *begun).exit_code == 0, "the same goes on"
    shown = veridical(*run, *changed)
    assert shown.exit_code == 2
    assert "prompt was" in shown.stderr


def test_a_family_without_a_chat_template_is_evaluated_with_the_prompt_of_its_table(veridical, tmp_path):
    model, out = tmp_path / "paligemma", tmp_path / "run"
    setting("paligemma").model.save_pretrained(model)
    processor("paligemma").save_pretrained(model)
    run = ("evaluate", "--no-prefect", "-m", model, "--benchmark", "chair", "--limit", 1, "--max-new-tokens", 2)
    shown = veridical(*run, "--system", "Be brief.", "--out", out)
    assert shown.exit_code == 0, shown.stderr
    report = json.loads((out / "manifest.json").read_text())["benchmarks"]["chair"]
    assert report["prompt"] == "Be brief.\n<image>Please describe this image in detail."
