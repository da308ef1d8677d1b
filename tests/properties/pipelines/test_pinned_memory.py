"""Tensors go to a GPU from pinned memory, and nowhere else; there is no GPU here, so that calls are counted."""

import pytest
import torch

import veridical
from veridical.datasets.world import scene
from veridical.pipelines.inputs.complete import moved


@pytest.fixture
def calls(monkeypatch):
    """Pins nothing and moves nothing: notes which calls were asked for."""
    found = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: found.append("pinned") or self)
    plain = torch.Tensor.to

    def to(self, *args, **options):
        if args and isinstance(args[0], torch.device) and args[0].type == "cuda":
            found.append(("cuda", options.get("non_blocking", False)))
            return self
        return plain(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return found


def test_without_a_gpu_nothing_is_pinned(calls, monkeypatch):
    """A device may be only pretended, as in the contract's tests of split models."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    moved(torch.ones(2), torch.device("cuda"))
    assert calls == [("cuda", False)]


def test_a_copy_to_a_gpu_is_pinned_and_does_not_block(calls):
    value = torch.ones(2)
    assert torch.equal(moved(value, torch.device("cuda", 0)), value)
    assert calls == ["pinned", ("cuda", True)]


def test_what_is_on_another_device_is_not_pinned(calls):
    moved(torch.ones(2, device="meta"), torch.device("cuda"))
    assert calls == [("cuda", False)]


def test_on_a_processor_nothing_is_pinned(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    lvlm = veridical.load("embedded", device="cpu")
    value = torch.ones(2)
    assert moved(value, torch.device("cpu")) is value
    lvlm.caption([scene("test", 0).image], max_new_tokens=2)
    assert pinned == []


def test_prepared_rows_of_a_model_on_a_gpu_come_from_pinned_memory(monkeypatch, calls):
    lvlm = veridical.load("embedded", device="cpu")
    monkeypatch.setattr(type(lvlm), "device", property(lambda self: torch.device("cuda", 0)))
    rows = lvlm.prepare([scene("test", 0).image], ["What is this?"])
    assert calls == ["pinned", ("cuda", True)] * len(rows)
    assert "pixel_values" in rows
