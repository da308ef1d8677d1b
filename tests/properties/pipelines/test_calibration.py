"""Answers carry the probability that a calibration makes of a risk, where it speaks of this detector, model and run."""

import dataclasses
import json

import numpy as np
import pytest

import veridical
from veridical.datasets.world import scene
from veridical.detectors import Entropy, LookbackLens, Margin
from veridical.flows.detection.calibrate import calibrate
from veridical.flows.detection.request import Detection
from veridical.flows.files import atomic
from veridical.metrics.calibration import Curve
from veridical.models import DETECTORS as SHIPPED
from veridical.pipelines.inputs.text_alignment import sentences
from veridical.pipelines.model.identity import identity, misfit
from veridical.pipelines.model.spec import ModelSpec
from veridical.pipelines.risk.calibration import (
    SHIPPED_FOLDER,
    Calibration,
    calibration_of,
    fields_of,
    is_trained,
    read,
)

CURVES = {
    "words": Curve("isotonic", ((0.0, 0.1), (3.0, 0.9))), "sentences": Curve("platt", ((1.0, -2.0),)),
    "answers": Curve("isotonic", ((0.0, 0.3), (1.0, 0.6))),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    return veridical.load("embedded", device="cpu")


@pytest.fixture
def lvlm(plain, tmp_path):
    """With a calibration of `entropy` of this test's own."""
    detector = Entropy()
    Calibration("entropy", fields_of(detector), is_trained(detector), identity(plain), CURVES).save(
        tmp_path / "entropy.json"
    )
    return dataclasses.replace(plain, calibrations=str(tmp_path))


IMAGE = scene("test", 1).image


def test_a_caption_has_a_probability_per_token_and_per_sentence(lvlm):
    (one,) = lvlm.caption([IMAGE], detectors=["entropy"], max_new_tokens=20)
    risk = one.risk["entropy"]
    assert one.probability["entropy"] == pytest.approx(CURVES["words"](risk).tolist())
    parts = sentences(one.text, one.tokens)
    assert len(parts) >= 2
    highest = [max(risk[part.first : part.last]) for part in parts]
    assert one.sentence_probability["entropy"] == pytest.approx(CURVES["sentences"](highest).tolist())
    json.dumps(dataclasses.asdict(one), allow_nan=False)


def test_a_yes_or_no_has_the_probability_that_it_is_wrong(lvlm):
    (one,) = lvlm.answer([IMAGE], ["Is there a dog in the image?"], detectors=["entropy"], max_new_tokens=4)
    risk = one.risk["entropy"]
    assert one.probability["entropy"] == pytest.approx(CURVES["answers"]([risk[0]] * len(risk)).tolist())
    assert one.sentence_probability == {}


@pytest.mark.parametrize(
    "other", [{"decoders": ["sla"]}, {"do_sample": True}, {"decoders": ["drop:detector=entropy,threshold='inf'"]}]
)
def test_another_way_to_decode_has_no_probability(lvlm, other):
    """None was measured."""
    (one,) = lvlm.caption([IMAGE], detectors=["entropy"], max_new_tokens=4, **other)
    assert one.risk["entropy"]
    assert one.probability == {}


def test_a_calibration_is_of_one_detector_with_its_settings_and_of_one_model(lvlm, plain):
    found = calibration_of(Entropy(), lvlm)
    assert found is not None
    assert not found.fits(Margin(), lvlm)
    other = dataclasses.replace(found, model={**found.model, "weights": "0" * 64})
    assert not other.fits(Entropy(), lvlm)
    assert not dataclasses.replace(found, fields={"window": 3}).fits(Entropy(), lvlm)
    assert not dataclasses.replace(found, trained=True).fits(Entropy(), lvlm)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no calibration of a detector"),
        ("{}", "'format'"),
        ('{"format": 9}', "format 9; this version reads up to 1"),
        ('{"format": 1, "curves": {"words": {"kind": "isotonic", "knots": [[0, 2]]}}}', "within 0 to 1"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, text, message):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "calibration.json")


# ---------------------------------------------------------------------- fitted from evaluations


def evaluation(folder, split, seed, images=120):
    """A folder of evaluate-detectors: three mentions and two sentences per image; entropy says how likely they lie."""
    draw = np.random.default_rng(seed)
    part = lambda count: (draw.random(images * count) * 3, np.repeat([f"{split}_{n}" for n in range(images)], count))
    found = {"positions": [0] * images * 3, "detectors": {}}
    for target, count in ((found, 3), (found.setdefault("sentences", {}), 2)):
        risk, names = part(count)
        wrong = (draw.random(len(risk)) < risk / 4).astype(int)
        target |= {"labels": wrong.tolist(), "images": names.tolist(), "risks": {"entropy": risk.tolist()}}
        target["risks"]["position"] = risk.tolist()
    atomic.write_json(folder / "request.json", Detection("captions", ["entropy"], model=ModelSpec("embedded")).record())
    atomic.write_json(folder / "risks.json", found)
    return str(folder)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_curves_are_fitted_to_one_evaluation_and_judged_on_another(tmp_path, plain, kind):
    known, fresh = evaluation(tmp_path / "a", "validation", 1, 400), evaluation(tmp_path / "b", "test", 2, 400)
    judged = calibrate([known], [fresh], str(tmp_path / "out"), kind)
    assert [(one.detector, one.unit) for one in judged] == [("entropy", "words"), ("entropy", "sentences")]
    assert all(0 < one.ece.value < 0.08 and one.ece.n == 400 for one in judged)
    found = calibration_of(Entropy(), dataclasses.replace(plain, calibrations=str(tmp_path / "out")))
    assert {unit: curve.kind for unit, curve in found.curves.items()} == {"words": kind, "sentences": kind}
    assert found.curves["words"]([2.0])[0] == pytest.approx(0.5, abs=0.12)
    assert found.data["ece"]["words"]["value"] == judged[0].ece.value


def test_without_another_evaluation_half_of_the_images_judge(tmp_path):
    judged = calibrate([evaluation(tmp_path / "a", "validation", 1)], [], str(tmp_path / "out"))
    assert (judged[0].fitted_on, judged[0].ece.n, judged[0].items) == (60, 60, 180)


def test_images_that_are_fitted_on_judge_nothing(tmp_path):
    run = evaluation(tmp_path / "a", "validation", 1)
    with pytest.raises(ValueError, match="120 images, such as validation_0, are both fitted on and judged on"):
        calibrate([run], [run], str(tmp_path / "out"))


# ---------------------------------------------------------------------- what is shipped


def test_shipped_calibrations_fit_the_embedded_model_and_say_how_far_they_are_off(plain):
    found = {path.stem: read(path) for path in sorted((SHIPPED / SHIPPED_FOLDER).glob("*.json"))}
    assert {"entropy", "lookback_lens", "token_probability"} <= set(found)
    for name, one in found.items():
        assert misfit(one.model, plain) is None, name
        assert set(one.data["ece"]) == set(one.curves), name
        assert all(0 < error["value"] < 0.05 and error["n"] >= 100 for error in one.data["ece"].values()), name


def test_answers_of_the_embedded_model_carry_shipped_probabilities_and_other_settings_none(plain):
    shipped = calibration_of(LookbackLens(), plain)
    (one,) = plain.caption([IMAGE], detectors=["lookback_lens"], max_new_tokens=20)
    assert one.probability["lookback_lens"] == shipped.curves["words"](one.risk["lookback_lens"]).tolist()
    assert len(one.sentence_probability["lookback_lens"]) == len(sentences(one.text, one.tokens))
    assert calibration_of(LookbackLens(weights=None, window=4), plain) is None
    assert calibration_of(LookbackLens(window=4), plain) is None
