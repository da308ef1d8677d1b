"""`veridical fit`, `veridical bake` and `veridical data pairs`, and the directions that are shipped."""

import json

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from veridical import load
from veridical.datasets.world import scene
from veridical.decoders import ADHH, VTI, Nullu
from veridical.decoders.fitted import CONFIG, TENSORS
from veridical.flows.fitting.pairs import read_pairs, world_pairs
from veridical.flows.fitting.run import FITTED
from veridical.metrics.chair import Chair
from veridical.models import DIRECTIONS, EMBEDDED_SMOLLM2

SECOND = EMBEDDED_SMOLLM2 / "directions"


@pytest.fixture(scope="module")
def lvlm():
    return load("embedded")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, veridical):
    folder = tmp_path_factory.mktemp("pairs")
    result = veridical("data", "pairs", "--count", 3, "--out", folder)
    assert result.exit_code == 0, result.stderr
    return folder / "pairs.jsonl"


def test_a_pair_differs_in_objects_that_are_not_there():
    """The true caption names what is there; the hallucinated one something that is not, and as many objects."""
    chair = Chair()
    for index, pair in enumerate(world_pairs(12)):
        there = set(scene("train", index).categories)
        true, false = chair.parse(pair.truthful), chair.parse(pair.hallucinated)
        assert set(true.objects) == there
        assert set(false.objects) - there
        assert len(true.objects) == len(false.objects)


def test_pairs_are_written_beside_their_images_and_read_back(pairs):
    read, built = read_pairs(pairs), world_pairs(3)
    assert [one[1:] for one in read] == [one[1:] for one in built]
    assert all(one.image.startswith(str(pairs.parent)) for one in read)
    assert len(read_pairs(pairs, 2)) == 2


def test_files_of_the_released_codes_are_read_too(pairs, tmp_path):
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    other = [{"image": row["image"], "value": row["truthful"], "h_value": row["hallucinated"]} for row in rows]
    path = pairs.with_name("lure.json")
    path.write_text(json.dumps(other))
    assert read_pairs(path) == read_pairs(pairs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no pairs"),
        ("{", "is neither JSON lines nor a JSON list"),
        ('{"image": "x.png", "truthful": "A dog."}', "pair 1: no hallucinated or h_value"),
        ('{"image": "x.png", "truthful": "A dog.", "hallucinated": "A cat."}', "pair 1: no image .*x.png"),
        ('{"image": "../x.png", "truthful": "A dog.", "hallucinated": "A cat."}', "leads out of"),
    ],
)
def test_a_wrong_file_of_pairs_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_pairs(path)


@pytest.mark.parametrize("name", ["nullu", "vti"])
def test_what_is_fitted_on_a_file_is_used_by_its_folder(veridical, pairs, tmp_path, name, image_files):
    result = veridical("fit", name, "--pairs", pairs, "--out", tmp_path / "found")
    assert result.exit_code == 0, result.stderr
    assert f'"{name}:weights={tmp_path / "found"}"' in result.stdout
    config = json.loads((tmp_path / "found" / "config.json").read_text())
    assert config["decoder"] == name
    assert config["pairs"] == 3
    assert config["model"]["name"] == "embedded"
    fields = "rank=2," if name == "nullu" else ""
    decoder = f"{name}:{fields}weights={tmp_path / 'found'}"
    used = veridical("caption", image_files.a, "-d", decoder, "--max-new-tokens", 4)
    assert used.exit_code == 0, used.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "vcd"), "vcd is not fitted on pairs of captions; possible: adhh, nullu, vti"),
        (("fit", "nullu", "--image"), "--image fits the vision tower for vti"),
        (("fit", "nullu", "--pairs", "nowhere.jsonl"), "nowhere.jsonl"),
        (("bake", "embedded", "-d", "vcd"), "vcd cannot be baked"),
        (("bake", "embedded", "-d", "vdc"), 'Did you mean "vcd"'),
        (("bake", "embedded", "-d", "mvp"), "mvp"),
    ],
)
def test_what_cannot_be_fitted_or_baked_is_one_message(veridical, tmp_path, arguments, message):
    result = veridical(*arguments, "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- baking the embedded model


@pytest.fixture(scope="module")
def baked(veridical, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baked") / "model"
    result = veridical("bake", "embedded", "-d", "nullu", "--out", folder)
    assert result.exit_code == 0, result.stderr
    assert "4 tensors changed; logits of checkpoint and hooks differ by" in result.stdout
    return folder


def test_the_baked_folder_is_an_ordinary_checkpoint_that_captions_as_the_hooks_do(baked, lvlm):
    model, processor = AutoModelForImageTextToText.from_pretrained(baked), AutoProcessor.from_pretrained(baked)
    image = scene("test", 4).image
    text = lvlm.prompt("Describe the image in detail.")
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    (hooked,) = lvlm.answer([image], "Describe the image in detail.", ["nullu"], max_new_tokens=24)
    assert processor.decode(ids, skip_special_tokens=True).strip() == hooked.text
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {one.name for one in baked.iterdir()}


def test_it_is_loaded_as_any_folder_and_has_other_weights(baked, veridical, image_files):
    assert veridical("caption", image_files.a, "-m", baked, "--max-new-tokens", 4).exit_code == 0
    record = json.loads((baked / "veridical.json").read_text())
    assert record["error"] <= 1e-5
    assert record["source"] == "embedded"


# ---------------------------------------------------------------------- what is shipped


@pytest.mark.parametrize("cls", [Nullu, VTI, ADHH])
def test_directions_are_shipped_for_the_embedded_model_and_belong_to_it(cls, lvlm):
    assert list(cls().edits(lvlm, {}))
    about = cls(weights="shipped").fitted(lvlm).about
    assert about["model"]["name"] == "embedded"
    assert about["data"]["pairs_sha256"]


@pytest.mark.parametrize(("folder", "model"), [(DIRECTIONS, "embedded"), (SECOND, "embedded-smollm2")])
@pytest.mark.parametrize("decoder", FITTED)
def test_every_fitted_decoder_has_directions_of_either_shipped_model(decoder, folder, model):
    about = json.loads((folder / decoder / CONFIG).read_text())
    assert (about["decoder"], about["model"]["name"]) == (decoder, model)
    tensors = load_file(folder / decoder / TENSORS)
    if decoder == "adhh":
        assert tensors["scores"].shape == (about["model"]["layers"], about["model"]["heads"])
        best = tensors["scores"][tensors["heads"][:, 0], tensors["heads"][:, 1]]
        assert best.tolist() == tensors["scores"].flatten().topk(len(best)).values.tolist()
