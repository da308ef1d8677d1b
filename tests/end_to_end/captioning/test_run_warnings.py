"""Warnings of an evaluation and of a job: each different one once, from Python, on the command line, under Prefect."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from veridical.flows.captioning import run
from veridical.flows.captioning.request import Captioning
from veridical.flows.files import run_warnings
from veridical.pipelines.compatibility import DoubtfulPair
from veridical.pipelines.generate import NeverActed
from veridical.pipelines.model.embedded import NotItsWorld

from ..evaluations import evaluate

FEW = {"shard_size": 2, "batch_size": 1, "generation": {"max_new_tokens": 2}}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A folder of four images that are none of the embedded model's scenes."""
    folder, dice = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(dice.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def caught():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def count(caught, category):
    return sum(issubclass(one.category, category) for one in caught)


def test_an_evaluation_warns_of_a_doubtful_pair_once_and_not_of_a_method_that_never_acts(tmp_path, caught):
    """Two benchmarks of three batches each; the results have how often a method acted."""
    decoders = ["vcd+m3id", "var:tau=1000000.0"]
    evaluate(tmp_path, decoders=decoders, benchmarks=["pope", "chair"], limit=3, batch_size=1)
    assert count(caught, DoubtfulPair) == len({str(one.message) for one in caught if one.category is DoubtfulPair}) > 0
    assert count(caught, NeverActed) == 0


def test_a_job_warns_once_of_images_that_the_embedded_model_does_not_know(noise, tmp_path, caught):
    request = Captioning([str(noise)], **FEW)
    run.captioning(request, str(tmp_path / "one"))
    assert count(caught, NotItsWorld) == 1
    run.captioning(replace(request, decoders=["vcd"]), str(tmp_path / "two"))
    assert count(caught, NotItsWorld) == 2, "another run warns again"


def test_the_command_line_notes_once_that_photos_are_not_the_embedded_models_world(veridical, test_data, tmp_path):
    photos = sorted((test_data / "photos" / "mini").glob("*.jpg"))[:3]
    options = ("--shard-size", 1, "--max-new-tokens", 2, "--no-prefect", "--out", tmp_path / "out")
    done = veridical("caption", *photos, "-d", "greedy", "-d", "vcd", *options)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("note: the embedded model knows nothing but its own drawn scenes") == 1


def test_a_job_under_prefect_warns_as_one_without_it(noise, tmp_path, caught, prefect_server):
    from veridical.flows.caption import overnight

    overnight(Captioning([str(noise)], **FEW), str(tmp_path / "out"))
    assert count(caught, NotItsWorld) == 1


def test_warnings_of_workers_are_shown_once_per_run(tmp_path, caught):
    for out in ("one", "one", "two"):
        run_warnings.warn_once(tmp_path / out, [NotItsWorld("photos"), NotItsWorld("photos"), DoubtfulPair("twice")])
    assert count(caught, NotItsWorld) == count(caught, DoubtfulPair) == 2
