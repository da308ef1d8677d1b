"""The files of a saved detector are checked before the first image: each damage is named."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import veridical
from veridical.detectors.dhcp import DHCP
from veridical.detectors.lookback_lens import LookbackLens
from veridical.detectors.trained import CONFIG, TENSORS, OtherModel
from veridical.flows.captioning import run
from veridical.flows.captioning.request import Captioning
from veridical.flows.evaluation import steps
from veridical.models import DETECTORS
from veridical.pipelines.lvlm import LVLM

from ...end_to_end.evaluations import request


@pytest.fixture
def probe(tmp_path, request):
    """A copy of a shipped detector's folder: the kind of the test's `kind` mark, or Lookback Lens."""
    mark = request.node.get_closest_marker("parametrize")
    kind = request.node.callspec.params.get("kind", "lookback_lens") if mark else "lookback_lens"
    folder = tmp_path / kind
    folder.mkdir()
    for name in (CONFIG, TENSORS):
        (folder / name).write_bytes((DETECTORS / kind / name).read_bytes())
    return folder


def change(folder, name, value):
    tensors = load_file(folder / TENSORS)
    tensors[name] = value(tensors[name])
    save_file(tensors, folder / TENSORS)


def recorded(folder, value):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(value(config)))


def holed(bad):
    def value(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[0] = bad
        return tensor

    return value


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        ("lookback_lens", "weight", holed(float("nan")), "1 of 48 numbers of weight are NaN or infinite"),
        ("lookback_lens", "bias", holed(float("inf")), "1 of 1 numbers of bias are NaN or infinite"),
        ("lookback_lens", "weight", lambda t: t[None], r"weight has the shape \(1, 48\); needed: \(feature\)"),
        ("lookback_lens", "weight", lambda t: t[:0], r"weight has the shape \(0,\)"),
        ("lookback_lens", "weight", lambda t: t[:-1], "reads 47 features, and its configuration says 48"),
        ("dhcp", "weight_2", holed(float("-inf")), "numbers of weight_2 are NaN or infinite"),
        ("dhcp", "scale", holed(0.0), "a scale is not above 0"),
        ("dhcp", "bias_1", lambda t: t[:-1], r"bias_1 has the shape \(127,\); needed: \(hidden\), with hidden 128"),
        ("dhcp", "mean", lambda t: t[1:], "has the shape"),
    ],
)  # fmt: skip
def test_numbers_and_shapes_that_cannot_be_are_named(probe, kind, name, value, message):
    change(probe, name, value)
    with pytest.raises(ValueError, match=message):
        {"dhcp": DHCP, "lookback_lens": LookbackLens}[kind].from_pretrained(probe)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "model"}, "does not say which model .* was trained on"),
        (lambda c: {**c, "model": {"name": "embedded"}}, "no type, layers, heads, weights in its `model`"),
        (lambda c: {**c, "model": None}, "does not say which model"),
        (lambda c: {**c, "fields": {"width": 3}}, "other fields than a 'lookback_lens' detector"),
        (lambda c: {**c, "fields": []}, "is not the configuration of a trained detector"),
        (lambda c: {**c, "format": "new"}, "has format new"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_say_what_the_probe_is_for_is_refused(probe, value, message):
    recorded(probe, value)
    with pytest.raises(ValueError, match=message):
        LookbackLens.from_pretrained(probe)


def test_deep_json_a_large_configuration_and_a_header_of_many_tensors_are_refused(probe):
    kept = (probe / CONFIG).read_text()
    (probe / CONFIG).write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not the configuration of a trained detector"):
        LookbackLens.from_pretrained(probe)
    (probe / CONFIG).write_text(kept + " " * (1 << 20))
    with pytest.raises(ValueError, match="possible: up to 1,048,576"):
        LookbackLens.from_pretrained(probe)
    (probe / CONFIG).write_text(kept)
    (probe / TENSORS).write_bytes(struct.pack("<Q", 10_000_000) + b"{")
    with pytest.raises(ValueError, match="has a header of 10,000,000 bytes"):
        LookbackLens.from_pretrained(probe)
    (probe / TENSORS).write_bytes(struct.pack("<Q", 10) + b"{")
    with pytest.raises(ValueError, match="no safetensors file that can be read"):
        LookbackLens.from_pretrained(probe)


@pytest.mark.parametrize("kind", ["lookback_lens", "dhcp"])
def test_another_number_of_features_than_the_model_has_is_found_before_an_image(probe, kind):
    """Consistent in itself, and its configuration says the same."""
    tensors = load_file(probe / TENSORS)
    for name in {"lookback_lens": ["weight"], "dhcp": ["mean", "scale", "weight_1"]}[kind]:
        tensors[name] = tensors[name][..., :-48].contiguous() if kind == "dhcp" else tensors[name][:-6]
    save_file(tensors, probe / TENSORS)
    size = {"lookback_lens": 42, "dhcp": 3024}[kind]
    recorded(probe, lambda config: {**config, "features": size})
    detector = veridical.pipelines.registry.DETECTORS.make(f"{kind}:weights={probe}")
    with pytest.raises(OtherModel, match=rf"reads {size} features, and of this model it would get (48|3072)"):
        detector.for_model(veridical.load("embedded"))


def test_a_job_and_an_evaluation_find_it_before_the_first_image(probe, tmp_path, monkeypatch):
    change(probe, "weight", lambda tensor: torch.full_like(tensor, float("nan")))
    monkeypatch.setattr(LVLM, "answer", lambda *given, **options: pytest.fail("an image was answered"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    detectors = [f"lookback_lens:weights={probe}"]
    with pytest.raises(ValueError, match="48 of 48 numbers of weight are NaN"):
        run.captioning(Captioning([str(tmp_path / "images")], detectors=detectors), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="48 of 48 numbers of weight are NaN"):
        steps.evaluation(request(detectors=detectors, limit=2), str(tmp_path / "run"))
