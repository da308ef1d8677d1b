"""Perceptual limits: figures by level and paired changes, by hand."""

import pytest

from veridical.metrics.limits import Outcome, changes, estimates, sums


def seen(scenes, level, hits):
    return [Outcome(n, [("size", level)], "present", yes=n < hits, right=n < hits) for n in range(scenes)]


def test_a_level_counts_its_own_answers_and_the_whole_counts_each_once():
    both = [("size", 48), ("place", 0.0)]
    outcomes = [
        Outcome(0, both, "present", yes=True, right=True), Outcome(0, both, "absent", yes=True),
        Outcome(1, [("size", 12)], "caption", named=True, mentions=4, hallucinated=1),
    ]  # fmt: skip
    found = estimates(sums(outcomes))
    assert found["size", 48]["accuracy"].value == found["place", 0.0]["accuracy"].value == 0.5
    assert found["size", 48]["false_alarm_rate"].value == 1
    assert found["size", 12]["chair_i"].value == 0.25
    assert sums(outcomes)["", ""]["accuracy"] == {0: (1.0, 2.0)}  # not twice for two levels


def test_numbers_are_counted_where_the_number_varies_alone():
    found = sums([Outcome(0, [("size", 48), ("number", 1)], "count", right=True)])
    assert "count_accuracy" in found["number", 1]
    assert ("size", 48) not in found


def test_a_change_is_paired_by_scene():
    outcomes = seen(20, 48, 18) + seen(20, 12, 8)
    change = changes(sums(outcomes), "size", 48)[12]["hit_rate"]
    assert change.estimate.value == pytest.approx(-0.5)
    assert (change.estimate.n, change.differing) == (20, 10)
    assert change.p == pytest.approx(2 / 2**10)  # ten scenes fall, none rises


def test_a_scene_without_the_reference_is_left_out_of_its_change():
    outcomes = seen(20, 48, 20)[:10] + seen(20, 12, 0)
    assert changes(sums(outcomes), "size", 48)[12]["hit_rate"].estimate.n == 10
