"""A matcher's map from its grid to pixels, its question, its name and its cache, in numbers."""

import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from veridical.decoders.agla import AGLA
from veridical.decoders.agla_view import question
from veridical.pipelines.matching import cache
from veridical.pipelines.matching.base import Match, attention_gradient, blur, fingerprint, squashed, stretch
from veridical.pipelines.matching.cache import Cached
from veridical.pipelines.matching.load import BLIP, EMBEDDED, default_matcher, load_matcher
from veridical.pipelines.model.load import CannotLoad

RED = torch.full((3, 4, 6), 200, dtype=torch.uint8)


class Counting:
    """A matcher that notes what it was asked."""

    def __init__(self, id="counting"):
        self.id, self.requests = id, []

    def match(self, images, prompts):
        self.requests.append(list(prompts))
        return [Match(torch.full((2, 2), len(prompt) / 100), len(prompt) / 50) for prompt in prompts]


# ---------------------------------------------------------------------- maps


def test_stretching_is_from_the_least_to_the_largest_and_a_constant_is_zero():
    assert stretch(torch.tensor([2.0, 3.0, 6.0])).tolist() == [0.0, 0.25, 1.0]
    assert stretch(torch.full((3,), 7.0)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("shape", "sigma"), [((384, 384), 7.68), ((9, 14), 0.5), ((5, 7), 6.0)])
def test_the_blur_is_scipys_gaussian_filter_which_the_released_code_calls(shape, sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    cam = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.from_numpy(ndimage.gaussian_filter(cam.numpy(), sigma))
    torch.testing.assert_close(blur(cam, sigma), expected, rtol=0, atol=1e-12)


def test_a_spread_map_has_the_images_size_runs_from_0_to_1_and_peaks_in_its_cell():
    grid = torch.zeros(4, 6)
    grid[1, 4] = 3.0
    cam = Match(grid, 0.5).spread(80, 120)
    assert (cam.shape, float(cam.min()), float(cam.max())) == ((80, 120), 0.0, 1.0)
    row, column = divmod(int(cam.argmax()), 120)
    assert 20 <= row < 40
    assert 80 <= column < 100
    assert float(cam[:, :38].max()) == 0
    assert float(Match(torch.ones(2, 2), 0.5).spread(8, 8).abs().max()) == 0


def test_the_gradient_with_respect_to_attention_is_that_of_autograd():
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    attention, values = draw(2, 3, 4, 5).softmax(-1).requires_grad_(), draw(2, 3, 5, 6)
    out = attention @ values
    score = (out * draw(2, 3, 4, 6)).sum() + out.square().sum()
    gradient, expected = torch.autograd.grad(score, (out, attention))
    torch.testing.assert_close(attention_gradient(gradient, values), expected)


def test_images_of_any_size_are_squashed_and_normalised():
    wide = torch.cat([torch.zeros(3, 8, 20, dtype=torch.uint8), torch.full((3, 8, 20), 255, dtype=torch.uint8)], 2)
    pixels = squashed([wide, RED], (4, 4), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "cpu")
    assert pixels.shape == (2, 3, 4, 4)
    assert pixels[0, :, :, [0, 3]].unique().tolist() == [-2.0, 2.0]
    torch.testing.assert_close(pixels[1], torch.full((3, 4, 4), (200 / 255 - 0.5) / 0.25))


# ---------------------------------------------------------------------- the question


@pytest.mark.parametrize(
    ("prompt", "bare"),
    [
        ("USER: \nIs there a dog in the image? ASSISTANT:", "is there a dog in the image?"),
        ("USER: \nIs there a Cat? Please answer this question with one word. ASSISTANT:", "is there a cat?"),
        ("USER: \nWhat (exactly) is it: #1, a *dog*? ASSISTANT:", "what exactly is it 1, a dog ?"),
        ("You are careful. USER: \nDescribe it. ASSISTANT:", "describe it"),
        ("no template at all", "no template at all"),
        ("USER: " + "word " * 60 + "ASSISTANT:", " ".join(["word"] * 50)),
    ],
)
def test_the_matcher_gets_the_bare_question_in_lower_case(prompt, bare):
    assert question(prompt, "USER:", "ASSISTANT:") == bare


# ---------------------------------------------------------------------- which matcher


def test_the_embedded_model_gets_the_shipped_matcher_and_others_the_papers():
    lvlm = pytest.importorskip("veridical").load("embedded", device="cpu")
    assert default_matcher(lvlm) == EMBEDDED
    lvlm.model.config.name_or_path, kept = "somebody/llava", lvlm.model.config.name_or_path
    other = type(lvlm)(lvlm.model, lvlm.processor, name="somebody/llava")
    assert default_matcher(other) == BLIP
    lvlm.model.config.name_or_path = kept


@pytest.mark.parametrize("name", [BLIP, "open_clip:nobody/nothing", "open_clip:hf-hub:nobody/nothing@main"])
def test_offline_a_matcher_from_the_hub_is_refused_with_what_to_do(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CannotLoad, match=r"(?s)could it be fetched.*HF_HUB_OFFLINE.*agla:matcher=.*AGLA\(view=…\)"):
        load_matcher(name)


def test_a_matcher_folder_that_lacks_something_is_refused_with_what_is_there(tmp_path):
    with pytest.raises(CannotLoad, match=r"no folder .*nowhere"):
        load_matcher(f"blip:{tmp_path}/nowhere")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CannotLoad, match=r"no open_clip_config\.json .*found pytorch_model\.bin"):
        load_matcher(f"open_clip:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(CannotLoad, match=r"safetensors .*\(pickles are not read\)"):
        load_matcher(f"open_clip:{tmp_path}")
    with pytest.raises(CannotLoad, match=r"safetensors \(pickles are not read\); found open_clip_config\.json"):
        load_matcher(f"blip:{tmp_path}")


def test_a_decoder_with_a_matcher_is_its_own_repr():
    method = AGLA(matcher="open_clip:my/folder")
    assert eval(repr(method)) == method


def test_other_weights_have_another_fingerprint(tmp_path):
    for name, value in (("a", 0.0), ("b", 1.0), ("c", 0.0)):
        save_file({"weight": torch.full((9,), value)}, tmp_path / name)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert (a == c, a == b, len(a)) == (True, False, 16)


# ---------------------------------------------------------------------- the cache


def test_a_matcher_is_asked_once_per_image_prompt_and_matcher(tmp_path):
    matcher = Counting()
    cached = Cached(matcher, tmp_path)
    first = cached.match([RED, RED, RED], ["dog", "a cat", "dog"])
    assert matcher.requests == [["dog", "a cat"]]
    again = cached.match([RED, RED], ["a cat", "dog"])
    assert matcher.requests == [["dog", "a cat"], []]
    assert torch.equal(again[0].relevance, first[1].relevance)
    assert again[0].similarity == pytest.approx(first[1].similarity, abs=1e-7)
    cached.match([RED + 1, RED], ["dog", "dog"])
    Cached(Counting("other"), tmp_path).match([RED], ["dog"])
    cached.match([RED.reshape(3, 6, 4)], ["dog"])
    assert matcher.requests[2:] == [["dog"], ["dog"]]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 5
    assert not list(tmp_path.rglob("tmp*"))


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "text", "nan", "other", "large"], ids=lambda kind: f"a file that is {kind}"
)
def test_a_damaged_file_is_made_again(damage, tmp_path, caplog):
    matcher = Counting()
    cached = Cached(matcher, tmp_path)
    (first,) = cached.match([RED], ["dog"])
    path = cached.path(RED, "dog")
    whole = path.read_bytes()
    broken = {
        "nan": {"relevance": torch.full((2, 2), torch.nan), "similarity": torch.tensor(0.1)},
        "other": {"weight": torch.zeros(3)},
        "large": {"relevance": torch.full((2, 2), 0.5), "similarity": torch.tensor(7.0)},
    }
    if damage in broken:
        save_file(broken[damage], path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[:-3], "text": b"no tensors"}[damage])
    with caplog.at_level(logging.WARNING):
        (second,) = cached.match([RED], ["dog"])
    assert "made again" in caplog.text
    assert len(matcher.requests) == 2
    assert torch.equal(first.relevance, second.relevance)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_the_cache_and_not_the_result(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        (built,) = Cached(Counting(), tmp_path / "file").match([RED], ["dog"])
    assert built.similarity == 0.06
    assert "VERIDICAL_CACHE" in caplog.text


def test_a_full_folder_loses_what_was_written_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 2)
    for age, name in enumerate(("new", "old", "older")):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
        os.utime(tmp_path / f"{name}.safetensors", (1e9 - age, 1e9 - age))
    cache._make_room(tmp_path)
    assert [path.stem for path in tmp_path.iterdir()] == ["new"]


def test_the_cache_is_where_the_user_or_the_platform_says(monkeypatch):
    monkeypatch.setenv("VERIDICAL_CACHE", "/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.default_folder() == Path("/mine")
    monkeypatch.delenv("VERIDICAL_CACHE")
    assert cache.default_folder() == Path("/xdg/veridical")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.default_folder() == Path("~/.cache/veridical").expanduser()
    requests = []
    of_the_platform = lambda *names, **more: requests.append(names) or "/of/the/platform"
    monkeypatch.setattr("platformdirs.user_cache_dir", of_the_platform)
    assert cache.default_folder() == Path("/of/the/platform")
    assert requests == [("veridical",)]
