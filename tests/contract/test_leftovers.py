"""A run leaves the model as it found it, whether it ends well or not."""

import pytest
import torch

import veridical
from veridical.pipelines.engine.declarations import Branch
from veridical.pipelines.engine.plan import BUSY

from .setting import STEPS, Wrapped, assert_unchanged, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


class Broken(Exception):
    """What a test lets happen inside a run."""


def hold(setting, run):
    """The model before, during and after `run`; plain decoding must come out to the last bit."""
    plain, before = setting.plain(), snapshot(setting.lvlm)
    run()
    assert_unchanged(before, snapshot(setting.lvlm))
    assert id(setting.model) not in BUSY
    assert torch.equal(setting.logits(), plain)


def test_nothing_is_left_behind_after_success(setting, name):
    hold(setting, lambda: setting.generate([setting.acting(name)]))


def test_nothing_is_left_behind_after_beams(tiny, name):
    hold(tiny, lambda: tiny.generate([tiny.acting(name)], num_beams=3))


@pytest.mark.parametrize("after", [0, 5], ids=["at_once", "later"])
def test_nothing_is_left_behind_when_an_edit_raises(setting, name, after):
    calls = []

    def around(declared, call):
        def failing(*given):
            calls.append(declared)
            if len(calls) > after:
                raise Broken
            return call(*given)

        return failing

    decoder = Wrapped(setting.acting(name), around)
    declared = list(decoder.edits(setting.lvlm, setting.inputs))
    if all(isinstance(one, Branch) for one in declared):
        assert name == "greedy", "a method that declares something other than branches"
        return

    def run():
        with pytest.raises(Broken):
            setting.generate([decoder], max_new_tokens=8)

    hold(setting, run)


def test_nothing_is_left_behind_when_the_model_itself_raises(tiny, name):
    """Out of memory, for one: in the middle of the first pass, which for many methods is their own prefill."""
    handle = None

    def run():
        nonlocal handle

        def failing(module, given):
            raise Broken

        handle = tiny.lvlm.layers[len(tiny.lvlm.layers) // 2].mlp.register_forward_pre_hook(failing)
        try:
            with pytest.raises(Broken):
                tiny.generate([tiny.acting(name)])
        finally:
            handle.remove()

    hold(tiny, run)


def test_nothing_is_left_behind_when_a_users_own_processor_raises(tiny, name):
    def failing(ids, scores):
        raise Broken

    def run():
        with pytest.raises(Broken):
            tiny.generate([tiny.acting(name)], logits_processor=[failing])

    hold(tiny, run)


def test_the_global_random_numbers_stay_as_they_are(tiny, name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tiny.generate([tiny.acting(name)])
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_stay_as_they_are(tiny, name):
    before = {key: value.clone() for key, value in tiny.inputs.items()}
    tiny.generate([tiny.acting(name)])
    assert tiny.inputs.keys() == before.keys()
    assert all(torch.equal(tiny.inputs[key], before[key]) for key in before)


def test_a_second_run_inside_a_run_is_refused_and_the_first_one_is_lost_cleanly(tiny):
    """A model's hooks belong to one run at a time."""

    def around(declared, call):
        return lambda *given: tiny.generate(["vsv"])

    def run():
        with pytest.raises(RuntimeError, match="already in a run with methods in place"):
            tiny.generate([Wrapped(tiny.acting("vsv"), around)])

    hold(tiny, run)


def test_a_method_inside_transformers_generate_is_refused_within_a_run(tiny):
    def around(declared, call):
        def nested(*given):
            tiny.model.generate(
                **tiny.inputs, custom_generate=veridical.mitigate(["sla"]), max_new_tokens=STEPS, do_sample=False
            )

        return nested

    def run():
        with pytest.raises(RuntimeError, match="already in a run with methods in place"):
            tiny.generate([Wrapped(tiny.acting("vsv"), around)])

    hold(tiny, run)
