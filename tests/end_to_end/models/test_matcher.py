"""The shipped matcher: what it shows on test scenes, AGLA with it offline, and a new one trained by the command."""

import re
import socket

import pytest
import torch

from veridical.datasets.world import SIZE, scene
from veridical.flows.training.matcher.card import table
from veridical.flows.training.matcher.examination import box_mask, examine, question_of
from veridical.flows.training.matcher.lessons import Lessons
from veridical.flows.training.matcher.run import main, train_matcher
from veridical.flows.training.matcher.training import Recipe, Trainer
from veridical.models import MATCHER
from veridical.pipelines.matching.base import Match
from veridical.pipelines.matching.load import load_matcher
from veridical.pipelines.matching.open_clip import OpenClipMatcher
from veridical.pipelines.model.load import CannotLoad

from ..evaluations import evaluate

SCENES = 40


@pytest.fixture(scope="module")
def figures():
    return examine(load_matcher("embedded"), SCENES)


@pytest.fixture
def no_network(monkeypatch):
    """A data loader's worker talks to its parent through a socket that is a file; that may be."""

    def connected(this, address, inner=socket.socket.connect):
        assert this.family == socket.AF_UNIX, f"something wants the network: {address}"
        return inner(this, address)

    def looked_up(*given, **named):
        raise AssertionError(f"something wants the network: {given}")

    monkeypatch.setattr(socket.socket, "connect", connected)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


# ---------------------------------------------------------------------- what it shows


def test_relevance_lies_on_the_object_that_was_asked_for(figures):
    """At least three times the boxes' share of the image, as the interval says; elsewhere is the control."""
    assert figures["concentration"].low >= 3
    assert figures["concentration"].n == SCENES
    assert figures["elsewhere"].high < 2
    assert figures["three"].low > 0.85
    assert figures["order"].low > 0.9
    assert figures["present"].low > figures["absent"].high + 0.3


def test_the_card_says_it_of_200_scenes_and_nothing_that_40_contradict(figures):
    card = (MATCHER / "README.md").read_text(encoding="utf-8")
    assert "The first 200 scenes of the test split" in card
    assert "python -m veridical.flows.training.matcher.run" in card
    number = r"(-?[\d.]+)"
    rows = re.findall(rf"^\| (.+) \| {number} \| {number} – {number} \| (\d+) \|$", card, re.MULTILINE)
    assert [row[0] for row in rows] == [line.split(" | ")[0][2:] for line in table(figures).splitlines()[2:]]
    for (label, value, low, high, n), here in zip(rows, figures.values(), strict=True):
        assert n == "200", label
        assert float(low) <= float(value) <= float(high)
        assert here.low <= float(high), label
        assert float(low) <= here.high, label
    assert float(rows[0][2]) >= 3


def test_the_measure_is_1_over_the_share_for_a_map_of_the_boxes_and_1_for_an_even_one():
    class Drawn(Match):
        def spread(self, height, width):
            return self.relevance

    class Oracle:
        id = "oracle"

        def __init__(self, even):
            self.even, self.index = even, 0

        def match(self, image_files, prompts):
            """Of the scene whose turn it is; the first half of the prompts is about what is there."""
            seen = scene("test", self.index)
            self.index += 1
            maps = [torch.from_numpy(box_mask(seen, name)).float() for name in seen.categories]
            assert prompts[: len(maps)] == [question_of(name) for name in seen.categories]
            assert len(prompts) == 2 * len(maps)
            if self.even:
                maps = [torch.ones(SIZE, SIZE)] * len(maps)
            return [Drawn(one, 0.5) for one in maps] + [Drawn(maps[0], -0.5)] * len(maps)

    true, even = (examine(Oracle(flag), 6) for flag in (False, True))
    assert [even[name].value for name in ("concentration", "elsewhere")] == pytest.approx([1, 1])
    assert even["three"].value == 0
    assert true["mass"].value == pytest.approx(1)
    assert true["concentration"].value > 1 / true["area"].value > 3
    assert (true["order"].value, true["present"].value, true["absent"].value) == (1, 0.5, -0.5)


def test_it_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in MATCHER.iterdir()) <= 8e6


# ---------------------------------------------------------------------- AGLA with it


def test_agla_captions_offline_and_asks_the_matcher_once_per_image(
    veridical, image_files, no_network, monkeypatch, tmp_path
):
    monkeypatch.setenv("VERIDICAL_CACHE", str(tmp_path / "cache"))  # another test's has these images already
    words = ("caption", image_files.a, image_files.b, "-d", "agla", "-d", "agla:alpha=0.5")
    first = veridical(*words)
    assert first.exit_code == 0, first.stderr
    assert len(first.stdout.splitlines()) == 6
    assert len([*(tmp_path / "cache").rglob("*.safetensors")]) == 2
    monkeypatch.setattr(OpenClipMatcher, "_batch", None)
    assert veridical(*words).stdout == first.stdout


def test_what_is_masked_is_not_what_was_asked_for():
    """Six scenes: the boxes of a question's object keep more of themselves than the rest of the image does."""
    import veridical
    from veridical.decoders.agla import AGLA
    from veridical.pipelines.inputs.pixel_values import images_of

    lvlm = veridical.load("embedded", device="cpu")
    inside, outside = [], []
    for index in range(6):
        seen = scene("test", index)
        name = seen.categories[0]
        inputs = lvlm.prepare([seen.image], [question_of(name)])
        dark = AGLA().branch(lvlm, inputs)
        before, after = (images_of(lvlm, one).whole[0].float().sum(0) for one in (inputs, dark))
        box = torch.nn.functional.interpolate(
            torch.from_numpy(box_mask(seen, name))[None, None].float(), size=before.shape, mode="nearest"
        )[0, 0].bool()
        stays = ((after > 0) | (before == 0)).float()
        assert torch.equal(after[after > 0], before[after > 0])
        inside.append(float(stays[box].mean()))
        outside.append(float(stays[~box].mean()))
    assert min(outside) < 0.95
    assert sum(inside) / 6 > sum(outside) / 6 + 0.1


def test_a_matcher_that_is_not_here_is_named_with_what_to_do(veridical, image_files, no_network):
    shown = veridical("caption", image_files.a, "-d", "agla:matcher=blip:nobody/nothing")
    assert shown.exit_code == 2
    message = " ".join(shown.stderr.split())
    assert "HF_HUB_OFFLINE is set" in message
    assert "agla:matcher=" in message
    assert "Traceback" not in message


def test_an_evaluation_misses_a_matcher_before_anything_is_answered(tmp_path, no_network):
    with pytest.raises(CannotLoad, match="blip:nobody/nothing"):
        evaluate(tmp_path / "run", decoders=["greedy", "agla:matcher=blip:nobody/nothing"], limit=1)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------- training


def test_the_command_trains_a_matcher_that_open_clip_loads_and_agla_uses(veridical, image_files, tmp_path, no_network):
    report = veridical("train-matcher", "--out", tmp_path / "made", "--images", 64, "--examined", 2, "--device", "cpu")
    assert report.exit_code == 0, report.stderr
    assert {path.name for path in (tmp_path / "made").iterdir()} == {path.name for path in MATCHER.iterdir()}
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "The first 2 scenes of the test split" in card
    assert "64 images of the train split" in card
    trained = OpenClipMatcher.load(tmp_path / "made")
    assert trained.id != load_matcher("embedded").id
    shown = veridical("caption", image_files.a, "-d", f"agla:matcher=open_clip:{tmp_path / 'made'}")
    assert shown.exit_code == 0, shown.stderr


def test_a_folder_that_holds_something_and_a_device_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "mine").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"not empty. Give another --out"):
        train_matcher(tmp_path)
    with pytest.raises(ValueError, match='device="tpu" cannot be used here'):
        train_matcher(tmp_path / "new", device="tpu")


def test_the_shipped_matcher_fits_its_lessons_and_one_that_is_only_built_does_not():
    """The loss that it was trained by, on scenes of the train split that it never saw, and no step against it."""
    lessons = Lessons(start=500_000)
    batch = lessons.batch([lessons.lesson(500_000 + number) for number in range(8)])
    assert batch.true.shape == (8, len(batch.texts))
    trainer = Trainer(Recipe(images=16, batch=8))

    def loss(model):
        with torch.no_grad():
            image_files = model.encode_image(batch.pixels, normalize=True)
            texts = model.encode_text(trainer.encode(batch.texts), normalize=True)
            return float(trainer.sigmoid_loss(image_files, texts, batch.true))

    assert loss(load_matcher("embedded").model) < 0.5 * loss(trainer.model)
    first = trainer.advance(batch, 0)
    losses = [trainer.advance(batch, 1) for _ in range(4)]
    assert losses[-1] < first


def test_the_module_prints_the_cards_table(capsys, figures):
    main(scenes=str(2))
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in shown] == [line.split(" | ")[0] for line in table(figures).splitlines()]
