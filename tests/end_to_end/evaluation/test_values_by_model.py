"""What a paper uses on one model is taken by the model's name, printed, recorded, and gives way to what was asked."""

import json

import pytest

from veridical.pipelines import per_model
from veridical.pipelines.model import spec

from ...families.models.tiny_processors import processor
from ...families.setting import setting


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A tiny model in a folder of a name for which AvisC's paper has another α."""
    path = tmp_path_factory.mktemp("models") / "instructblip-vicuna-7b"
    setting("llava").model.save_pretrained(path)
    processor("llava").save_pretrained(path)
    yield path
    spec.load.cache_clear()


@pytest.mark.parametrize(("decoder", "alpha"), [("avc", 3.0), ("avc:alpha=2.5", 2.5), ("avc:beta=0.2", 3.0)])
def test_a_caption_says_which_strength_it_was_made_with(veridical, named, image_files, decoder, alpha):
    per_model._log.cache_clear()
    shown = veridical("caption", image_files.a, "-m", named, "-d", decoder, "--max-new-tokens", 2, "--json")
    assert shown.exit_code == 0, shown.stderr
    assert f"alpha={alpha}" in json.loads(shown.stdout)["settings"]["decoders"][0]
    note = f"note: AVC on {named}: alpha=3.0, its paper's for this model"
    assert (note in shown.stderr) == (alpha == 3.0)


def test_the_list_says_which_models_have_values_of_their_own(veridical):
    shown = " ".join(veridical("list", "--long").stdout.split())
    assert "on instructblip-vicuna-7b: alpha=3.0" in shown
    assert "on qwen2-vl-7b: sink_dims=(458,2570)" in shown
