"""Trained detectors on disk: they come back the same, and are refused where they do not belong, with the reason."""

import json

import pytest
import torch

import veridical
from veridical import models
from veridical.detectors.dhcp import DHCP
from veridical.detectors.lookback_lens import LookbackLens
from veridical.detectors.trained import CONFIG, TENSORS, OtherModel
from veridical.pipelines.model.identity import fingerprint, identity, shipped, shipped_directions

from ...contract import setting as settings


@pytest.fixture(scope="module")
def ids(tiny):
    return tiny.generate().ids


@pytest.fixture(scope="module")
def lens(tiny, ids):
    """A Lookback Lens fitted to labels that mean nothing."""
    features = LookbackLens(weights=None).features(tiny.lvlm, tiny.inputs, ids).flatten(0, 1)
    return LookbackLens(weights=None).fit(features, torch.arange(len(features)) % 2, lvlm=tiny.lvlm, seed=3)


@pytest.fixture(scope="module")
def folder(lens, tmp_path_factory):
    return lens.save_pretrained(tmp_path_factory.mktemp("lens"), data={"unit": "tokens", "texts_sha256": "0" * 64})


@pytest.fixture(params=[{"layers": 6}, {"heads": 4, "kv_heads": 2}, {"seed": 1}], ids=["layers", "heads", "weights"])
def other(request):
    """Another model, and what the refusal must name."""
    options = {"heads": 8, "kv_heads": 2, **request.param}
    report = {"layers": "layers 8, here 6", "heads": "heads 8, here 4", "seed": "other weights"}
    return settings.tiny(options.pop("heads"), options.pop("kv_heads"), **options), report[next(iter(request.param))]


def scored(setting, detector, ids):
    (risk,) = veridical.score(setting.lvlm, setting.inputs, ids, [detector]).values()
    return risk


def test_what_was_saved_scores_as_before(tiny, ids, lens, folder):
    again = LookbackLens.from_pretrained(folder)
    assert torch.equal(scored(tiny, again, ids), scored(tiny, lens, ids))
    assert torch.equal(scored(tiny, f"lookback_lens:weights={folder}", ids), scored(tiny, lens, ids))
    assert not torch.equal(scored(tiny, LookbackLens(weights=None), ids), scored(tiny, lens, ids))


def test_a_saved_network_scores_as_before(tiny, ids, tmp_path):
    """Its large matrix is kept in half precision from the fit on, so that saving rounds nothing."""
    bare = DHCP(rows="own", weights=None)
    record = veridical.pipelines.generate.teacher_force(tiny.lvlm, tiny.inputs, ids, [bare])
    features = bare.token_features(record).flatten(0, 1).repeat(4, 1)
    features = features * torch.rand(features.shape, generator=torch.Generator().manual_seed(0))
    detector = bare.fit(features, torch.arange(len(features)) % 2, lvlm=tiny.lvlm, epochs=2)
    again = DHCP.from_pretrained(detector.save_pretrained(tmp_path))
    assert again.rows == "own"
    assert torch.equal(scored(tiny, again, ids), scored(tiny, detector, ids))


def test_the_configuration_says_what_it_is_for_and_made_of(tiny, folder):
    config = json.loads((folder / CONFIG).read_text())
    assert config["model"] == identity(tiny.lvlm)
    assert config["fields"] == {"context": "image", "window": 1}
    assert (config["detector"], config["features"], config["items"], config["seed"]) == ("lookback_lens", 64, 12, 3)
    assert config["classes"] == [6, 6]
    assert config["data"]["texts_sha256"] == "0" * 64
    assert {"torch", "transformers", "scikit-learn", "veridical"} == set(config["versions"])


def test_saving_again_keeps_what_was_recorded(folder, tmp_path):
    LookbackLens.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / CONFIG).read_text() == (folder / CONFIG).read_text()
    assert (tmp_path / "copy" / TENSORS).read_bytes() == (folder / TENSORS).read_bytes()


def test_on_another_model_it_is_refused_with_the_reason(other, folder):
    setting, message = other
    with pytest.raises(OtherModel, match=message):
        setting.generate([], detectors=[f"lookback_lens:weights={folder}"])
    with pytest.raises(OtherModel, match=message):
        setting.generate([], detectors=[LookbackLens.from_pretrained(folder)])


def test_the_same_weights_rounded_are_the_same_model(tiny, ids, folder):
    rounded = settings.tiny(8, 2)
    rounded.model.to(torch.bfloat16)
    assert fingerprint(rounded.model) == fingerprint(tiny.model)
    LookbackLens.from_pretrained(folder).for_model(rounded.lvlm)


def test_other_settings_than_it_was_trained_with_are_refused(tiny, folder):
    with pytest.raises(ValueError, match=r"other settings: window was 1, now 8\. Give the same: "):
        tiny.generate([], detectors=[f"lookback_lens:window=8,weights={folder}"])


def test_a_folder_of_another_detector_is_refused(tiny, folder):
    with pytest.raises(ValueError, match="holds a 'lookback_lens' detector, not 'dhcp'"):
        tiny.generate([], detectors=[f"dhcp:weights={folder}"])


def test_folders_that_hold_no_detector_are_refused(tmp_path, folder):
    (tmp_path / "notes").mkdir()
    with pytest.raises(FileNotFoundError, match=r"looked for config\.json and detector\.safetensors; found notes"):
        LookbackLens.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        LookbackLens.from_pretrained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="neither a folder here nor on the Hub"):
        LookbackLens.from_pretrained("nobody/nothing")
    broken = LookbackLens.from_pretrained(folder).save_pretrained(tmp_path / "broken")
    (broken / CONFIG).write_text("{}")
    with pytest.raises(ValueError, match="is not the configuration of a trained detector"):
        LookbackLens.from_pretrained(broken)


def test_a_newer_format_is_refused(tmp_path, folder):
    newer = LookbackLens.from_pretrained(folder).save_pretrained(tmp_path)
    config = json.loads((newer / CONFIG).read_text())
    (newer / CONFIG).write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(ValueError, match="has format 99; this version reads up to 1"):
        LookbackLens.from_pretrained(newer)


def test_without_a_probe_there_is_nothing_to_save_and_dhcp_says_how_to_train_one(tiny, tmp_path):
    with pytest.raises(ValueError, match="has no probe to save"):
        LookbackLens(weights=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"dhcp needs a trained probe, and none is shipped for .* train-detector"):
        tiny.generate([], detectors=["dhcp"])


def test_the_shipped_probe_is_left_aside_on_other_models(tiny, ids):
    """The Lookback Lens then is what it is untrained, and says that it is no probability."""
    bare = LookbackLens(weights=None)
    assert torch.equal(scored(tiny, "lookback_lens", ids), scored(tiny, bare, ids))
    assert not LookbackLens().for_model(tiny.lvlm).is_probability


def test_a_model_gets_the_shipped_probe_that_was_trained_on_it(tiny, tmp_path, monkeypatch):
    """Each shipped model has a folder of its own; without a model the name means that of `embedded`."""
    folder = tmp_path / "detectors" / "dhcp"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model": identity(tiny.lvlm)}), encoding="utf-8")
    monkeypatch.setattr(models, "EMBEDDED_SMOLLM2", tmp_path)
    assert shipped("dhcp") == models.DETECTORS / "dhcp"
    assert shipped("dhcp", tiny.lvlm) == folder
    assert shipped("halp", tiny.lvlm) is None, "that of another model does not fit"
    (folder.parents[1] / "directions").mkdir()
    folder.rename(tmp_path / "directions" / "vti")
    assert shipped_directions("vti", tiny.lvlm) == tmp_path / "directions" / "vti"
    assert shipped_directions("nullu", tiny.lvlm) is None
