"""The time of a job by its law: exact on a clock that keeps it, and within a factor on this machine."""

import time
from types import SimpleNamespace

import pytest

import veridical
from veridical.datasets.prompts import DETAIL_PROMPT
from veridical.datasets.world import scene
from veridical.flows.checkup import forecast as forecasts
from veridical.flows.checkup.forecast import Job, Law, batch_sizes, counted, forecast, longest


@pytest.fixture(scope="module")
def embedded():
    return veridical.load("embedded", device="cpu")


class Machine:
    """A model whose batches take what a law says, on a clock of its own. Its texts have the lengths given."""

    name = "machine"

    def __init__(self, law, lengths):
        self.law, self.lengths, self.now = law, lengths, 0.0
        self.passes = []

    def answer(self, images, question, methods, batch_size, max_new_tokens, min_new_tokens=1):
        out = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            texts = [min(max(self.lengths[k], min_new_tokens), max_new_tokens) for k in part]
            going = [sum(length > step for length in texts) for step in range(1, max(texts))]
            self.now += self.law.batch + self.law.image * len(part)
            self.now += self.law.step * len(going) + self.law.row * sum(going)
            self.passes += [(len(part), 30), *((rows, 1) for rows in going)]
            out += [SimpleNamespace(tokens=range(length)) for length in texts]
        return out


@pytest.fixture
def machine(monkeypatch):
    one = Machine(Law(0.5, 0.25, 0.125, 0.0625), [4, 9, 20, 31, 12, 12, 7, 25])

    class Counting:
        def __enter__(self):
            def count(run):
                one.passes.clear()
                result = run()
                return forecasts.Counts(len(one.passes), sum(r * w for r, w in one.passes), None), result

            return count

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(forecasts, "counted", lambda lvlm: Counting())
    monkeypatch.setattr("veridical.pipelines.chain.chain", lambda decoder, name: [])
    return one


def test_a_machine_that_keeps_the_law_is_predicted_exactly(machine):
    """The job has the sample's lengths at hand: one batch of all of them, so that the longest is known."""
    job = Job(8, range(8), "?", batch=1)
    found = forecast(machine, job, "greedy", lambda: machine.now)
    began = machine.now
    machine.answer(range(8), "?", [], 1, 128)
    assert found["seconds"] == pytest.approx(machine.now - began)
    assert found["low"] < found["seconds"] < found["high"]


@pytest.mark.parametrize("batch", [2, 4, 8])
def test_batches_of_a_long_job_are_predicted_within_three_percent(machine, batch):
    import random

    found = forecast(machine, Job(4000, range(8), "?", batch, shard=32), "greedy", lambda: machine.now)
    draw, began = random.Random(0), machine.now
    for size in batch_sizes(4000, batch, 32):
        machine.answer(draw.choices(range(8), k=size), "?", [], size, 128)
    assert found["seconds"] == pytest.approx(machine.now - began, rel=0.03)
    for name, value in vars(machine.law).items():
        assert found["law"][name] == pytest.approx(value), name


def test_no_coefficient_is_below_zero_when_a_measured_time_is_off():
    law = Law.of({(8, 1): 4.0, (8, 17): 3.0, (4, 1): 5.0, (4, 17): 9.0}, 1)
    assert min(vars(law).values()) >= 0


def test_costs_are_counted_on_the_model(embedded):
    images = [scene("test", index).image for index in range(2)]
    with counted(embedded) as count:
        plain = count(lambda: embedded.caption(images, max_new_tokens=3, min_new_tokens=3))[0]
        vcd = count(lambda: embedded.caption(images, ["vcd"], max_new_tokens=3, min_new_tokens=3))[0]
    assert vcd.images == 2 * plain.images  # the noised image as well
    assert plain.passes == 3
    assert vcd.positions == 2 * plain.positions


def test_a_job_takes_about_as_long_as_predicted(embedded):
    """Loose, for other programs run beside the tests: processor time, within a factor of two."""
    sample = [scene("validation", index).image for index in range(8)]
    found = forecast(embedded, Job(24, sample, DETAIL_PROMPT, batch=8), "greedy", time.process_time)
    began = time.process_time()
    embedded.caption([scene("test", index).image for index in range(24)], batch_size=8)
    took = time.process_time() - began
    assert took / 2 < found["seconds"] < took * 2


def test_one_image_stands_for_a_batch_of_different_ones(embedded):
    """Equal images of a batch would be encoded once, and a job's are not."""
    found = forecast(embedded, Job(4, [scene("test", 0).image], DETAIL_PROMPT, 4, tokens=20), "greedy")
    assert found["encodings"] == 1


def test_a_procedure_is_refused_with_what_to_do_instead(embedded):
    with pytest.raises(ValueError, match=r"timings\.jsonl"):
        forecast(embedded, Job(10, [scene("test", 0).image], "?"), "mvp")


def test_the_longest_of_a_batch_grows_with_it():
    assert longest([3, 5, 10], 1) == 6
    assert longest([3, 5, 10], 1000) == pytest.approx(10)
