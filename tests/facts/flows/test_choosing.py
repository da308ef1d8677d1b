"""Choosing and certifying on recorded captions of 900 scenes: claims hold as often as they say over 200 splits."""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from veridical.flows.benchmarks.base import Source
from veridical.flows.choosing import certify
from veridical.flows.choosing.losses import Losses, Recorded, losses, thresholds
from veridical.flows.choosing.request import Choice
from veridical.metrics.chair import Chair

RECORDED = Path(__file__).parent / "recorded_captions.json"  # sentences with their risk, and what is in each scene
SPLITS, POINTS = 200, 0.015


@cache
def candidates():
    """Plain decoding and M3ID at thresholds that the first 100 scenes give; losses of the other 800."""
    found = json.loads(RECORDED.read_text())
    truth = [frozenset(found["categories"][name] for name in names) for names in found["truth"]]
    out = []
    for decoder, captions in found["decoders"].items():
        parts = [[(found["sentences"][at], risk) for at, risk in one] for one in captions]
        texts = [" ".join(text for text, _ in one) for one in parts]
        limits = thresholds(Recorded(decoder, texts, parts, truth, 0.1), range(100))
        out.append(losses(Recorded(decoder, texts[100:], parts[100:], truth[100:], 0.1), Chair(None), limits))
    return out


def splits(request):
    """(what is certified, its risk over all 800 scenes or None, its mean loss on the scenes that it has not seen)."""
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(800)
        calibration, certification, fresh = np.split(order, [200, 550])
        one = certify.choose(request, candidates(), calibration, certification)
        if one.losses is None:
            yield one, None, 0.0
        else:
            yield one, one.losses.loss[:, one.at].mean(), one.losses.loss[fresh, one.at].mean()


@pytest.mark.parametrize(("level", "confidence"), [(0.1, 0.9), (0.12, 0.8), (0.14, 0.9)])
def test_over_200_splits_the_level_is_kept_as_often_as_the_confidence_says(level, confidence):
    found = list(splits(Choice(level=level, confidence=confidence, recall_loss=0.2)))
    claims = [risk for _, risk, _ in found if risk is not None]
    wrong = sum(risk > level for risk in claims) / SPLITS
    assert len(claims) > 0.5 * SPLITS  # what never claims is never wrong
    assert wrong <= 1 - confidence + POINTS


@pytest.mark.parametrize("level", [0.08, 0.1, 0.12, 0.14])
def test_over_200_splits_the_expected_risk_on_fresh_scenes_is_the_level(level):
    found = list(splits(Choice(level=level, confidence=None, recall_loss=0.2)))
    assert all(risk is not None for _, risk, _ in found)
    assert np.mean([fresh for _, _, fresh in found]) == pytest.approx(level, abs=POINTS)


def test_a_level_that_recall_does_not_allow_is_claimed_seldom_and_never_beyond_its_expectation():
    found = list(splits(Choice(level=0.1, confidence=None, recall_loss=0.05)))
    assert any(risk is None for _, risk, _ in found)
    assert np.mean([fresh for _, _, fresh in found]) <= 0.1  # no claim counts as 0


def test_too_few_scenes_never_make_a_claim():
    """15 certify, where a level of 0.1 with confidence 0.9 takes 22 even without a mistake; 8 of 9 in expectation."""
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(800)
        for confidence, few in ((0.9, 15), (None, 8)):
            request = Choice(level=0.1, confidence=confidence, recall_loss=1.0)
            assert certify.choose(request, candidates(), order[:200], order[200 : 200 + few]).losses is None
            with pytest.raises(ValueError, match=f"leave {few} to certify with"):
                replace(request, calibration_share=0.5).enough(2 * few)


def table(decoder, loss, named, seconds=0.1):
    """A decoder with a threshold for each column: per-image losses, and the share of 10 objects that are named."""
    loss = np.asarray(loss, dtype=float)
    counts = np.zeros((*loss.shape, 4))
    counts[:, :, 0], counts[:, :, 1], counts[:, :, 2] = np.asarray(named), 10, 1
    counts[:, :, 3] = loss
    return Losses(decoder, [*range(loss.shape[1] - 1), math.inf], loss, counts, seconds)


def parts(images):
    return np.arange(images // 2), np.arange(images // 2, images)


def test_of_the_certified_settings_the_one_with_the_highest_recall_is_taken():
    rng = np.random.default_rng(0)
    loss = (rng.random((600, 1)) < np.array([0.0, 0.02, 0.05, 0.3])).astype(float)
    plain, other = table("greedy", loss, [5, 7, 8, 9]), table("m3id", loss, [6, 8, 9, 10])
    found = certify.choose(Choice(level=0.1, recall_loss=0.3), [plain, other], *parts(600))
    assert (found.losses.decoder, found.at) == ("m3id", 2)
    assert found.losses.setting(2, "lookback_lens") == "drop:detector='lookback_lens',threshold=2+m3id"
    assert found.p <= 0.1
    figures = found.figures(plain)
    assert figures["recall_change"].value == pytest.approx(0)
    assert figures["risk"].value == pytest.approx(loss[300:, 2].mean())
    assert figures["plain_risk"].value == pytest.approx(loss[300:, 3].mean())


def test_what_is_too_slow_or_loses_too_much_recall_is_out():
    loss = np.zeros((200, 2))
    plain, fast, slow = table("greedy", loss, [4, 9]), table("fast", loss, [9, 10]), table("slow", loss, [9, 11], 5.0)
    found = certify.choose(Choice(level=0.1, seconds=1.0, recall_loss=0), [plain, fast, slow], *parts(200))
    assert (found.losses.decoder, found.at) == ("fast", 1)
    assert found.losses.setting(1, "entropy") == "fast"  # an infinite threshold drops nothing
    none = certify.choose(Choice(level=0.1, seconds=0.01), [plain, fast, slow], *parts(200))
    assert "the fastest takes 0.100 seconds per image" in none.reason
    assert certify.statement(Choice(), none).startswith("Nothing is guaranteed: no setting is within the budget")


def test_no_image_is_in_both_parts_and_the_seed_divides_them():
    one, two = certify.divide(90, Choice(seed=1)), certify.divide(90, Choice(seed=2))
    assert sorted(np.concatenate(one)) == list(range(90))
    assert (len(one[0]), len(one[1])) == (30, 60)
    assert sorted(one[0]) != sorted(two[0])


def test_dropping_leaves_what_does_not_exceed_the_threshold():
    recorded = Recorded("greedy", ["A dog. A cat."], [[("A dog.", 0.2), ("A cat.", 0.6)]], [frozenset({"dog"})], 0.1)
    found = losses(recorded, Chair(None), [0.1, 0.2, 0.6, math.inf])
    assert found.loss.tolist() == [[0, 0, 0.5, 0.5]]
    assert found.counts[0].tolist() == [[0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 2, 1], [1, 1, 2, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 1.5}, "level=1.5 is outside 0 to 1"),
        ({"recall_loss": 2}, "recall_loss=2 is outside 0 to 1"),
        ({"seconds": 0}, "seconds=0 is not above 0"),
        ({"gate_shares": (1.5,)}, "share=1.5 is outside 0 to 1"),
        ({"decoders": ("drop",)}, "drop is a procedure"),
        ({"decoders": ("vdc",)}, 'no decoder "vdc"'),
        ({"source": Source(limit=30)}, "30 images leave 20 to certify with; a level of 0.1 with confidence 0.9 takes"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_any_caption(changes, message):
    with pytest.raises((ValueError, LookupError), match=message):
        replace(Choice(), **changes).check()
