"""A model specification stands for one loaded model."""

import json
from dataclasses import replace

from veridical.pipelines.model import spec
from veridical.pipelines.model.spec import ModelSpec


def test_equal_specifications_load_a_model_once(monkeypatch):
    from veridical.pipelines.model import load as loading

    calls = []
    monkeypatch.setattr(loading, "load", lambda *settings: calls.append(settings) or object())
    spec.load.cache_clear()
    first = spec.load(ModelSpec("embedded", dtype="fp32"))
    assert spec.load(ModelSpec("embedded", "auto", "fp32")) is first
    assert spec.load(ModelSpec("embedded")) is not first
    assert calls == [("embedded", "auto", "fp32", None, None, None), ("embedded", "auto", "auto", None, None, None)]
    spec.load.cache_clear()


def test_a_specification_survives_a_stored_request_with_other_fields_beside_it():
    given = ModelSpec("some/model", "cpu", "bf16", "main", "bnb-4bit", "eager")
    stored = json.loads(json.dumps({**given.record(), "decoders": ["greedy"], "seed": 0}))
    assert ModelSpec.from_record(stored) == given


def test_a_request_of_an_older_version_lacks_fields_and_gets_their_defaults():
    stored = {"model": "embedded", "device": "cpu", "dtype": "auto", "revision": None}
    assert ModelSpec.from_record(stored) == replace(ModelSpec("embedded"), device="cpu")
