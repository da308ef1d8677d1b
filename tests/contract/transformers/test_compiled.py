"""Compiled models: torch does not look at hooks that were added after it compiled, so that a run decodes without it."""

import functools

import pytest
import torch
from transformers import CompileConfig

import veridical
from veridical.pipelines.engine.declarations import LogitsEdit, Reading
from veridical.pipelines.model.compiled import eager

from .. import setting as settings
from ..setting import STEPS, Declares, assert_unchanged, difference, scale, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")



def small():
    """Few layers, because torch takes seconds to compile each."""
    return settings.tiny(8, 2, layers=4)


METHODS = ["vsv", "deco", "vhr", "pai"]  # edits of states, of heads and of attention, and readings
MORE = ["vcd", "sla:window=2", "dola", "var:tau=4.2,sink_dims=(5,40)", "avc", "imbalanced", "helpd:candidates=3",
        "gate:threshold=0"]  # fmt: skip
READERS = ["vhd", "logit_lens", "lookback_lens:weights=None", "image_attention", "margin:spellings=((9,),(10,))"]


def whole(model, backend="eager"):
    model.compile(backend=backend)


def forward(model, backend="eager"):
    model.forward = torch.compile(model.forward, backend=backend)


def language_model(model, backend="eager"):
    model.model.language_model.compile(backend=backend)


def layers(model, backend="eager"):
    for layer in model.model.language_model.layers:
        layer.compile(backend=backend)


def wrapped_part(model, backend="eager"):
    model.model.language_model = torch.compile(model.model.language_model, backend=backend)


def own_class(model, backend="eager"):
    """As if the class's `forward` were compiled, but of a class that no other test has."""
    model.__class__ = type("Compiled", (type(model),), {"forward": torch.compile(type(model).forward, backend=backend)})


COMPILERS = (whole, forward, language_model, layers, wrapped_part)


@pytest.fixture(scope="module")
def expected():
    """Of the model as it is, by method and by detector."""
    plain = small()
    logits = {method: plain.logits([method]) for method in METHODS + MORE}
    return plain, logits, plain.generate([], detectors=READERS)


def everywhere(some, more):
    """Cases of `compiled`: some methods with every way to compile a model, the others with one."""
    cases = [(how, one) for how in COMPILERS for one in some] + [(whole, one) for one in more]
    cases.sort(key=lambda case: COMPILERS.index(case[0]))
    return [pytest.param(how, one, id=f"{how.__name__}-{one}") for how, one in cases]


@pytest.fixture(scope="module", params=COMPILERS, ids=lambda how: how.__name__)
def compiled(request):
    """Compiled, and run once without any method: from then on torch has compiled passes without hooks."""
    made = small()
    request.param(made.model)
    made.model.generate(**made.inputs, max_new_tokens=2, do_sample=False)
    yield made
    torch._dynamo.reset()


@pytest.mark.parametrize(("compiled", "method"), everywhere(METHODS, MORE), indirect=["compiled"])
def test_a_method_gives_the_logits_of_the_uncompiled_model(compiled, expected, method):
    _, logits, _ = expected
    found = compiled.logits([method])
    assert difference(found, logits[method]) <= 1e-5 * scale(found)
    assert difference(logits[method], expected[0].plain()) > 1e-3


def test_a_class_whose_forward_is_compiled_is_refused_before_a_pass():
    made = small()
    own_class(made.model)
    with pytest.raises(ValueError, match=r"Compiled.forward is compiled for the whole class.* compile the one model"):
        made.logits(["deco"])
    with pytest.raises(ValueError, match="whole class"):
        made.generate([], detectors=["logit_lens"])


@pytest.mark.parametrize(("compiled", "method"), everywhere(["deco"], ["vsv", "pai"]), indirect=["compiled"])
def test_mitigate_gives_the_tokens_of_the_uncompiled_model(compiled, expected, method):
    out = compiled.model.generate(
        **compiled.inputs, custom_generate=veridical.mitigate([method]), max_new_tokens=STEPS, do_sample=False
    )
    prompt = compiled.inputs["input_ids"].shape[1]
    assert torch.equal(out[:, prompt:], expected[1][method].argmax(-1))


@pytest.mark.parametrize(("compiled", "reader"), everywhere(READERS[:2], READERS[2:]), indirect=["compiled"])
def test_a_detector_has_the_risks_of_the_uncompiled_model(compiled, expected, reader):
    read, name = expected[2], reader.split(":")[0]
    found = compiled.generate([], detectors=[reader])
    assert torch.equal(found.ids, read.ids)
    for risk in (found.risk[name], veridical.score(compiled.lvlm, compiled.inputs, read.ids, [reader])[name]):
        assert float((risk - read.risk[name]).abs().max()) <= 1e-4 * max(1.0, float(risk.abs().max()))


def test_a_run_leaves_the_model_as_compiled_as_it_was(compiled):
    before = snapshot(compiled.lvlm)
    held = [dict(vars(module)) for module in compiled.model.modules()]
    compiled.generate(["vsv"], detectors=["vhd"])
    failing = LogitsEdit(lambda logits, step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compiled.generate([Declares([Reading("read", [0], torch.clone, "block"), failing])])
    assert_unchanged(before, snapshot(compiled.lvlm))
    names = ("forward", "_compiled_call_impl")
    now = [vars(module) for module in compiled.model.modules()]
    assert [[a.get(n) for n in names] for a in held] == [[b.get(n) for n in names] for b in now]


class Counted:
    """A backend that runs a graph as it is and counts how often."""

    def __init__(self):
        self.runs = 0

    def __deepcopy__(self, memo):
        return self  # generate copies its configuration

    def __call__(self, graph, example):
        def run(*given):
            self.runs += 1
            return graph.forward(*given)

        return run


@pytest.mark.parametrize("how", COMPILERS, ids=lambda how: how.__name__)
def test_nothing_is_compiled_within_the_block_and_all_of_it_again_behind_it(tiny, how):
    made, backend = small(), Counted()
    how(made.model, backend)
    counts = []
    one_pass = lambda: made.model(**tiny.prompts[0], use_cache=False) and counts.append(backend.runs)
    one_pass()
    with eager(made.model):
        one_pass()
    one_pass()
    assert counts[0] > 0
    assert counts[1] == counts[0]
    assert counts[2] > counts[1]
    torch._dynamo.reset()


def test_another_compiled_model_stays_compiled_while_a_run_lasts(tiny):
    backend = Counted()
    other = torch.compile(lambda x: x + 1, backend=backend)
    edit = LogitsEdit(lambda logits, step: logits + 0 * other(torch.ones(1)))
    tiny.generate([Declares([Reading("read", [0], torch.clone, "block"), edit])])
    assert backend.runs == STEPS
    torch._dynamo.reset()


def test_what_torch_compile_returns_of_a_model_is_that_model():
    made = small()
    lvlm = veridical.LVLM(torch.compile(made.model, backend="eager"))
    assert lvlm.model is made.model
    out = veridical.generate(lvlm, made.inputs, ["vsv"], max_new_tokens=STEPS, do_sample=False)
    assert torch.equal(out.ids, small().generate(["vsv"]).ids)


def static(compiled=True):
    """A cache of fixed size, with which transformers compiles the passes; on CUDA it does so by itself."""
    config = CompileConfig(backend="eager", fullgraph=False, mode=None)
    config._compile_all_devices = compiled
    return {"cache_implementation": "static", "compile_config": config}


@pytest.fixture(scope="module")
def fixed():
    """Decoded once with a static cache and no method: from then on transformers has a compiled pass without hooks."""
    made = small()
    made.generate([], **static())
    assert hasattr(made.model, "_compiled_call")
    return made


@pytest.mark.parametrize("method", METHODS + MORE)
def test_a_static_cache_gives_the_logits_of_one_that_grows(fixed, expected, method):
    found = fixed.logits([method], **static())
    assert difference(found, expected[1][method]) <= 1e-5 * scale(found)


@pytest.mark.parametrize("reader", READERS)
def test_a_static_cache_gives_the_risks_of_one_that_grows(fixed, expected, reader):
    name = reader.split(":")[0]
    risk, wanted = fixed.generate([], detectors=[reader], **static()).risk[name], expected[2].risk[name]
    assert float((risk - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))


def test_a_method_without_hooks_leaves_the_static_cache_compiled(expected):
    """A contrast between branches reads logits alone, which compiled passes have too."""
    made, backend = small(), Counted()
    config = static()
    config["compile_config"].backend = backend
    found = made.logits(["vcd"], **config)
    assert backend.runs > 0
    assert difference(found, expected[1]["vcd"]) <= 1e-5 * scale(found)
    torch._dynamo.reset()


# ---------------------------------------------------------------------- what cannot be undone is refused


@pytest.fixture
def hidden():
    """Compiled out of sight, inside a function of one's own."""
    made = small()
    compiled = torch.compile(made.model.forward, backend="eager")
    made.model.forward = functools.wraps(compiled)(lambda *given, **named: compiled(*given, **named))
    yield made
    torch._dynamo.reset()


def test_a_pass_without_the_hooks_is_an_error_and_no_other_text(hidden):
    hidden.model.generate(**hidden.inputs, max_new_tokens=STEPS, do_sample=False)
    with pytest.raises(RuntimeError, match=r"edits and readings were not carried out .* compiled inside a function"):
        hidden.generate(["deco"])


def right_or_refused(call, expected, tolerance):
    """Torch compiles anew where a layer's configuration has changed; whether it does is its own affair.

    Any error counts as refused: torch also fails to compile the tests' own checks of shapes.
    """
    try:
        found = call()
    except Exception:
        return True
    return difference(found, expected) <= tolerance * scale(expected)


@pytest.mark.parametrize(("method", "before"), [("pai", True), ("vsv", False)], ids=["after_a_plain_run", "at_once"])
def test_a_method_on_passes_compiled_out_of_sight_is_right_or_refused_and_leaves_plain_runs_alone(
    hidden, expected, method, before
):
    """A run never compiles its own hooks into a model: they would act in plain runs after it."""
    if before:
        hidden.model.generate(**hidden.inputs, max_new_tokens=STEPS, do_sample=False)
    assert right_or_refused(lambda: hidden.logits([method]), expected[1][method], 1e-5)
    assert difference(hidden.logits(), expected[0].plain()) <= 1e-5 * scale(expected[0].plain())


def test_scoring_by_passes_compiled_out_of_sight_is_right_or_refused(hidden, expected):
    plain, ids = expected[0], torch.full((3, STEPS), 9)
    risk = lambda one: veridical.score(one.lvlm, one.inputs, ids, ["image_attention"])["image_attention"]
    hidden.logits()
    assert right_or_refused(lambda: risk(hidden), risk(plain), 1e-4)
    assert difference(hidden.logits(), plain.plain()) <= 1e-5 * scale(plain.plain())


def test_a_reading_of_an_earlier_step_is_never_used_again(tiny):
    """A layer whose hooks are gone from the second step on."""
    layer, seen = tiny.lvlm.layers[2], []

    def edit(logits, step):
        seen.append(step.latest("read"))
        layer._forward_hooks.clear()
        return logits

    with pytest.raises(RuntimeError, match=r"1 of 1 edits and readings were not carried out in the last forward pass"):
        tiny.generate([Declares([Reading("read", [2], lambda hidden: hidden[:, -1], "block"), LogitsEdit(edit)])])
    assert len(seen) == 1
