"""A model serves one thread while methods are in place; a pass of another is refused and neither text is changed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import veridical
from veridical.pipelines.engine.declarations import LogitsEdit, Reading, ResidualEdit
from veridical.pipelines.matching.base import in_batches

from .. import setting as settings
from ..setting import STEPS, Declares, assert_unchanged, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


def elsewhere(call):
    """What a call in another thread returns; raises what it raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


class Meanwhile:
    """A decoder behind another, during each of whose steps something happens in another thread."""

    def __init__(self, call):
        self.call, self.found = call, []

    def edits(self, lvlm, inputs):
        yield LogitsEdit(self.edit)

    def edit(self, logits, step):
        try:
            self.found.append(elsewhere(self.call))
        except RuntimeError as error:
            self.found.append(str(error))
        return logits


def plain(setting):
    return setting.model.generate(**setting.inputs, max_new_tokens=STEPS, do_sample=False)


@pytest.mark.parametrize("method", ["vsv", "deco", "vhr", "pai"])
def test_a_plain_generate_of_another_thread_is_refused_while_a_method_is_in_place(tiny, method):
    meanwhile, alone = Meanwhile(lambda: plain(tiny)), tiny.generate([method])
    before = snapshot(tiny.lvlm)
    assert torch.equal(tiny.generate([method, meanwhile]).ids, alone.ids)
    assert len(meanwhile.found) == STEPS
    for error in meanwhile.found:
        assert "this thread met a run with methods in place in another thread" in error
        assert "wait until that run is over, or load the model a second time" in error
    assert_unchanged(before, snapshot(tiny.lvlm))


def test_a_plain_generate_of_another_thread_is_refused_while_a_detector_reads(tiny):
    meanwhile, reads = Meanwhile(lambda: plain(tiny)), ["lookback_lens:weights=None"]
    out, alone = tiny.generate([meanwhile], detectors=reads), tiny.generate([], detectors=reads)
    assert all("in another thread" in error for error in meanwhile.found)
    assert torch.equal(out.ids, alone.ids)
    assert torch.equal(out.risk["lookback_lens"], alone.risk["lookback_lens"])


def test_a_contrast_of_branches_and_a_plain_generate_of_another_thread_leave_each_other_alone(tiny):
    """No hook is in place, so that nothing has to be refused."""
    meanwhile, expected = Meanwhile(lambda: plain(tiny)), plain(tiny)
    assert torch.equal(tiny.generate(["vcd", meanwhile]).ids, tiny.generate(["vcd"]).ids)
    assert len(meanwhile.found) == STEPS
    assert all(torch.equal(found, expected) for found in meanwhile.found)


@pytest.mark.parametrize("what", ["residual", "reading", "attention"])
def test_a_pass_that_began_before_the_run_is_refused_at_the_first_layer_with_a_hook(tiny, what):
    """The other thread waits inside its first layer until the run has put its hooks in place."""
    inside, go, calls = threading.Event(), threading.Event(), []
    edit = {
        "residual": ResidualEdit([3], lambda hidden, call: calls.append(len(hidden)) or hidden),
        "reading": Reading("read", [3], lambda hidden: calls.append(len(hidden)) or hidden, "block"),
        "attention": Reading("read", [3], lambda call: calls.append(len(call.query)) or call.query[:, -1:, 0]),
    }[what]

    def hold(module, args, kwargs):
        if threading.get_ident() != main:
            inside.set()
            assert go.wait(60)

    main = threading.get_ident()
    hook = tiny.lvlm.layers[0].register_forward_pre_hook(hold, with_kwargs=True)
    try:
        with ThreadPoolExecutor(1) as pool:
            alone = dict(tiny.prompts[0])
            other = pool.submit(lambda: tiny.model(**alone, use_cache=False).logits)
            assert inside.wait(60)

            def release(logits, step):
                if not go.is_set():
                    go.set()
                    other.exception(60)
                return logits

            out = tiny.generate([Declares([edit, LogitsEdit(release)])])
            with pytest.raises(RuntimeError, match="met a run with methods in place in another thread"):
                other.result()
    finally:
        hook.remove()
    assert set(calls) == {3}
    assert torch.equal(out.ids, tiny.generate().ids)


def test_twenty_five_texts_beside_plain_generation_of_another_thread_are_right_or_refused(tiny):
    """Both threads as fast as they can, on one model."""
    expected, ours, stop, wrong, refused = plain(tiny), tiny.generate(["vista"]).ids, threading.Event(), [], []

    def loop():
        while not stop.is_set():
            try:
                wrong.extend([1] * (not torch.equal(plain(tiny), expected)))
            except RuntimeError as error:
                refused.append("another thread" in str(error))

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(loop)
        try:
            texts = [tiny.generate(["vista"]).ids for _ in range(25)]
        finally:
            stop.set()
        other.result()
    assert [torch.equal(text, ours) for text in texts] == [True] * 25
    assert wrong == []
    assert refused
    assert all(refused)


def test_a_run_of_another_thread_is_refused_while_a_method_prepares(tiny):
    """Between its own passes too: a method may copy the model, hooks and all."""
    found = []

    class Prepares:
        def edits(self, lvlm, inputs):
            with pytest.raises(RuntimeError, match="already in a run with methods in place") as caught:
                elsewhere(lambda: tiny.generate(["vsv"]))
            found.append(caught.value)
            yield LogitsEdit(lambda logits, step: logits)

    tiny.generate([Prepares()])
    assert len(found) == 1


def test_two_threads_with_a_model_each_are_served_side_by_side():
    first, second = settings.tiny(8, 2), settings.tiny(8, 2, seed=1)
    expected = [one.generate(["vista"]).ids for one in (first, second)]
    with ThreadPoolExecutor(2) as pool:
        many = lambda one: [one.generate(["vista"]).ids for _ in range(5)]
        for found, want in zip(pool.map(many, (first, second)), expected, strict=True):
            assert all(torch.equal(one, want) for one in found)


def test_one_mitigate_object_serves_two_models_in_two_threads():
    first, second = settings.tiny(8, 2), settings.tiny(8, 2, seed=1)
    method = veridical.mitigate(["sla"])

    def text(one):
        return one.model.generate(**one.inputs, custom_generate=method, max_new_tokens=STEPS, do_sample=False)

    expected = [text(first), text(second)]
    assert not torch.equal(*expected)
    with ThreadPoolExecutor(2) as pool:
        many = lambda one: [text(one) for _ in range(15)]
        for found, want in zip(pool.map(many, (first, second)), expected, strict=True):
            assert all(torch.equal(one, want) for one in found)


def test_a_matcher_serves_one_thread_at_a_time():
    """AGLA's matcher is one for the whole process, and hooks are in place while it looks."""
    inside, most = [], []

    def match(images, prompts):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()
        return list(prompts)

    with ThreadPoolExecutor(4) as pool:
        many = lambda number: in_batches(match, 1, torch.zeros(3, 1), [str(number)] * 3)
        assert list(pool.map(many, range(4))) == [[str(number)] * 3 for number in range(4)]
    assert len(most) == 12
    assert max(most) == 1
