"""The times of `veridical check` are medians: one run that was held up does not count."""

from veridical.flows.checkup import cost


def test_a_run_that_is_held_up_once_does_not_change_the_time(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 19.0, 20.0, 21.5])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    results = iter("abc")
    assert cost.timed("cpu", lambda: next(results)) == ("c", 1.5)
