"""What every detector must be: the same while generating and afterwards, alone and in a batch; it changes nothing."""

import pytest
import torch

import veridical
from veridical.pipelines.engine import deferred_readings
from veridical.pipelines.registry import DETECTORS

from .models import every_model
from .setting import READING, STEPS, assert_unchanged, difference, scale, snapshot

RISK = 1e-5  # of the largest risk: one pass over all tokens against one pass per token, about 1e-6 measured


def close(found, expected):
    """Equal to RISK in proportion to the largest value, at least 1; not a number in the same places."""
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    real = ~expected.isnan()
    assert real.any()
    off = float((found[real] - expected[real]).abs().max())
    assert off <= RISK * max(1.0, float(expected[real].abs().max())), off


def risk_of(built):
    (risk,) = built.risk.values()
    return risk


@every_model
def test_a_risk_is_one_number_per_token_under_the_detectors_name(setting, detector):
    out = setting.risk(detector)
    assert list(out.risk) == [detector]
    assert risk_of(out).shape == out.ids.shape == (len(setting.prompts), STEPS)
    assert risk_of(out).isfinite().all()


@every_model
def test_scoring_a_finished_text_gives_the_risks_read_while_it_was_made(setting, detector):
    out = setting.risk(detector)
    close(veridical.score(setting.lvlm, setting.inputs, out.ids, [setting.detector(detector)])[detector], risk_of(out))


def test_risks_read_several_steps_at_a_time_are_those_of_scoring_the_whole_text(tiny, detector):
    """Longer than what waits at once, and no multiple of it."""
    count = 2 * deferred_readings.STEPS + 3
    out = tiny.generate([], detectors=[tiny.detector(detector)], max_new_tokens=count, min_new_tokens=count)
    assert out.ids.shape[1] == count
    close(veridical.score(tiny.lvlm, tiny.inputs, out.ids, [tiny.detector(detector)])[detector], risk_of(out))


@pytest.mark.parametrize("decoder", ["vcd", "sla"])
def test_methods_that_change_logits_alone_leave_the_risks_those_of_scoring(setting, detector, decoder):
    """Detectors read the model's own pass and its own distribution, before any contrast."""
    out = setting.generate([decoder], detectors=[setting.detector(detector)])
    close(veridical.score(setting.lvlm, setting.inputs, out.ids, [setting.detector(detector)])[detector], risk_of(out))


def test_steered_states_change_the_risks(setting, detector):
    """A detector that reads anything sees what the method has changed; scoring has no decoders."""
    if DETECTORS.own[detector].reads == "nothing":
        return
    out = setting.generate(["vsv"], detectors=[setting.detector(detector)])
    scored = veridical.score(setting.lvlm, setting.inputs, out.ids, [setting.detector(detector)])[detector]
    assert float((scored - risk_of(out)).abs().max()) > 1e-3


def test_beams_are_scored_when_they_are_finished(tiny, detector):
    out = tiny.generate([], detectors=[tiny.detector(detector)], num_beams=3)
    close(risk_of(out), veridical.score(tiny.lvlm, tiny.inputs, out.ids, [tiny.detector(detector)])[detector])


def test_all_detectors_together_say_what_each_says_alone(tiny):
    together = tiny.generate([], detectors=[tiny.detector(name) for name in READING]).risk
    assert list(together) == READING
    for name in READING:
        close(together[name], risk_of(tiny.risk(name)))


def test_two_detectors_of_one_name_are_refused(tiny):
    """Each would see what the other read."""
    two = ["lookback_lens:weights=None", "lookback_lens:context='prompt',weights=None"]
    with pytest.raises(ValueError, match=r"two detectors are 'lookback_lens', and risks are .* by name: .*score"):
        tiny.generate([], detectors=two)


@every_model
def test_a_batch_is_scored_as_its_rows_one_by_one(setting, detector):
    out = setting.risk(detector)
    for row, prompt in enumerate(setting.prompts):
        ids = out.ids[row : row + 1]
        close(veridical.score(setting.lvlm, prompt, ids, [setting.detector(detector)])[detector][0], risk_of(out)[row])


def test_after_the_end_there_is_no_risk(tiny, detector, monkeypatch):
    """The second token of the first row ends its text."""
    end = int(tiny.generate().ids[0, 1])
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", end)
    out = tiny.generate([], detectors=[tiny.detector(detector)])
    ended = out.ids == tiny.lvlm.pad_token
    assert ended[0].tolist() == [False, False, True, True]
    assert torch.equal(risk_of(out).isnan(), ended)
    close(veridical.score(tiny.lvlm, tiny.inputs, out.ids, [tiny.detector(detector)])[detector], risk_of(out))


@every_model
def test_reading_leaves_the_logits_as_they_are(setting, detector):
    """1e-5 of the largest logit: a detector with a branch of its own adds rows. Without, to the last bit."""
    read, plain = setting.logits([], detectors=[setting.detector(detector)]), setting.plain()
    assert difference(read, plain) <= 1e-5 * scale(plain)
    if detector != "vhd":
        assert torch.equal(read, plain)


def test_reading_leaves_nothing_behind(setting, detector):
    plain, before = setting.plain(), snapshot(setting.lvlm)
    out = setting.generate([], detectors=[setting.detector(detector)])
    veridical.score(setting.lvlm, setting.inputs, out.ids, [setting.detector(detector)])
    assert_unchanged(before, snapshot(setting.lvlm))
    assert torch.equal(setting.logits(), plain)


def test_a_static_cache_gives_the_risks_of_a_dynamic_one(setting, detector):
    static = setting.generate([], detectors=[setting.detector(detector)], cache_implementation="static")
    close(risk_of(static), risk_of(setting.risk(detector)))


def test_features_are_those_behind_the_score(tiny, detector):
    """Where a detector has features: one row per sample and token; DHCP's are of the whole answer, HALP's of none."""
    built = DETECTORS.make(detector)
    if not hasattr(built, "features"):
        return
    ids = tiny.generate().ids
    found = built.features(tiny.lvlm, tiny.inputs, ids)
    if detector == "dhcp":
        image = int(tiny.lvlm.image_mask(tiny.inputs["input_ids"])[0].sum())
        assert found.shape == (len(ids), len(tiny.lvlm.layers), tiny.lvlm.heads, image)
    elif detector == "halp":
        assert found.shape == (len(ids), tiny.lvlm.hidden_size)
    else:
        assert found.shape[:2] == ids.shape
    assert found.isfinite().all()
