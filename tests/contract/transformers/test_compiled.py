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



class Counted:
    """A backend that runs a graph as it is and counts how often."""

    def __init__(self):
        self.runs = 0

    def __deepcopy__(self, memo):
        return self  # generate copies its configuration

    def __call__(self, graph, example):
        def run(*values):
            self.runs += 1
            return graph.forward(*values)

        return run


BACKEND = Counted()


def small():
    """Few layers, because torch takes seconds to compile each pass of another shape: tests share what they can."""
    return settings.tiny(8, 2, layers=4)


def plainly(setting, tokens):
    return setting.model.generate(**setting.inputs, max_new_tokens=tokens, do_sample=False)


METHODS = ["vsv", "deco", "vhr", "pai"]  # edits of states, of heads and of attention, and readings
MORE = ["vcd", "sla:window=2", "dola", "var:tau=4.2,sink_dims=(5,40)", "avc", "imbalanced", "helpd:candidates=3",
        "gate:threshold=0"]  # fmt: skip
READERS = ["vhd", "logit_lens", "lookback_lens:weights=None", "image_attention", "margin:spellings=((9,),(10,))"]


def whole(model):
    model.compile(backend=BACKEND)


def forward(model):
    model.forward = torch.compile(model.forward, backend=BACKEND)


def language_model(model):
    model.model.language_model.compile(backend=BACKEND)


def layers(model):
    for layer in model.model.language_model.layers:
        layer.compile(backend=BACKEND)


def wrapped_part(model):
    model.model.language_model = torch.compile(model.model.language_model, backend=BACKEND)


def own_class(model):
    """As if the class's `forward` were compiled, but of a class that no other test has."""
    model.__class__ = type("Compiled", (type(model),), {"forward": torch.compile(type(model).forward, backend=BACKEND)})


COMPILERS = (whole, forward, language_model, layers, wrapped_part)


@pytest.fixture(scope="module")
def expected():
    """Of the model as it is, by method and by detector."""
    plain = small()
    logits = {method: plain.logits([method]) for method in METHODS + MORE}
    return plain, logits, plain.generate([], detectors=READERS)


@pytest.fixture(scope="module", params=COMPILERS, ids=lambda how: how.__name__)
def compiled(request):
    """Compiled, and run once without any method: from then on torch has compiled passes without hooks.

    The pass over the prompt, and for `whole` the one of a token too.
    """
    built = small()
    request.param(built.model)
    plainly(built, 2 if request.param is whole else 1)
    yield built
    torch._dynamo.reset()


# The other methods with one way to compile a model: its place among the fixture's own keeps it from being built again.
one_way = pytest.mark.parametrize("compiled", [whole], indirect=True, ids=["whole"])


def same_logits(compiled, expected, method):
    _, logits, _ = expected
    found = compiled.logits([method])
    assert difference(found, logits[method]) <= 1e-5 * scale(found)
    assert difference(logits[method], expected[0].plain()) > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_method_gives_the_logits_of_the_uncompiled_model(compiled, expected, method):
    same_logits(compiled, expected, method)


@one_way
@pytest.mark.parametrize("method", MORE)
def test_every_kind_of_method_gives_the_logits_of_the_uncompiled_model(compiled, expected, method):
    same_logits(compiled, expected, method)


def test_a_class_whose_forward_is_compiled_is_refused_before_a_pass():
    built = small()
    own_class(built.model)
    with pytest.raises(ValueError, match=r"Compiled.forward is compiled for the whole class.* compile the one model"):
        built.logits(["deco"])
    with pytest.raises(ValueError, match="whole class"):
        built.generate([], detectors=["logit_lens"])


def same_tokens(compiled, expected, method):
    out = compiled.model.generate(
        **compiled.inputs, custom_generate=veridical.mitigate([method]), max_new_tokens=STEPS, do_sample=False
    )
    prompt = compiled.inputs["input_ids"].shape[1]
    assert torch.equal(out[:, prompt:], expected[1][method].argmax(-1))


def test_mitigate_gives_the_tokens_of_the_uncompiled_model(compiled, expected):
    same_tokens(compiled, expected, "deco")


@one_way
@pytest.mark.parametrize("method", ["vsv", "pai"])
def test_mitigate_gives_the_tokens_of_the_uncompiled_model_with_every_kind_of_edit(compiled, expected, method):
    same_tokens(compiled, expected, method)


def same_risks(compiled, expected, reader):
    read, name = expected[2], reader.split(":")[0]
    found = compiled.generate([], detectors=[reader])
    assert torch.equal(found.ids, read.ids)
    for risk in (found.risk[name], veridical.score(compiled.lvlm, compiled.inputs, read.ids, [reader])[name]):
        assert float((risk - read.risk[name]).abs().max()) <= 1e-4 * max(1.0, float(risk.abs().max()))


@pytest.mark.parametrize("reader", READERS[:2])
def test_a_detector_has_the_risks_of_the_uncompiled_model(compiled, expected, reader):
    same_risks(compiled, expected, reader)


@one_way
@pytest.mark.parametrize("reader", READERS[2:])
def test_every_kind_of_detector_has_the_risks_of_the_uncompiled_model(compiled, expected, reader):
    same_risks(compiled, expected, reader)


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


def test_nothing_is_compiled_within_the_block_and_all_of_it_again_behind_it(compiled):
    def runs():
        plainly(compiled, 1)
        return BACKEND.runs

    before, compiled_once = BACKEND.runs, runs()
    with eager(compiled.model):
        within = runs()
    assert before < compiled_once == within < runs()


def test_another_compiled_model_stays_compiled_while_a_run_lasts(tiny):
    backend = Counted()
    other = torch.compile(lambda x: x + 1, backend=backend)
    edit = LogitsEdit(lambda logits, step: logits + 0 * other(torch.ones(1)))
    tiny.generate([Declares([Reading("read", [0], torch.clone, "block"), edit])])
    assert backend.runs == STEPS


def test_what_torch_compile_returns_of_a_model_is_that_model():
    built = small()
    lvlm = veridical.LVLM(torch.compile(built.model, backend="eager"))
    assert lvlm.model is built.model
    out = veridical.generate(lvlm, built.inputs, ["vsv"], max_new_tokens=STEPS, do_sample=False)
    assert torch.equal(out.ids, small().generate(["vsv"]).ids)


def static():
    """A cache of fixed size, with which transformers compiles the passes; on CUDA it does so by itself."""
    config = CompileConfig(backend=BACKEND, fullgraph=False, mode=None)
    config._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": config}


@pytest.fixture(scope="module")
def fixed():
    """Decoded once with a static cache and no method: from then on transformers has a compiled pass without hooks."""
    torch._dynamo.reset()  # torch compiles a class's forward for so many models, and no more
    built = small()
    built.generate([], **static())
    assert hasattr(built.model, "_compiled_call")
    return built


@pytest.mark.parametrize("method", METHODS + MORE)
def test_a_static_cache_gives_the_logits_of_one_that_grows(fixed, expected, method):
    found = fixed.logits([method], **static())
    assert difference(found, expected[1][method]) <= 1e-5 * scale(found)


@pytest.mark.parametrize("reader", READERS)
def test_a_static_cache_gives_the_risks_of_one_that_grows(fixed, expected, reader):
    name = reader.split(":")[0]
    risk, wanted = fixed.generate([], detectors=[reader], **static()).risk[name], expected[2].risk[name]
    assert float((risk - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))


def test_a_method_without_hooks_leaves_the_static_cache_compiled(fixed, expected):
    """A contrast between branches reads logits alone, which compiled passes have too."""
    before = BACKEND.runs
    found = fixed.logits(["vcd"], **static())
    assert BACKEND.runs > before
    assert difference(found, expected[1]["vcd"]) <= 1e-5 * scale(found)


# ---------------------------------------------------------------------- what cannot be undone is refused


FEW = 2  # tokens: the pass over the prompt and one more


def out_of_sight():
    """Compiled inside a function of one's own."""
    built = small()
    compiled = torch.compile(built.model.forward, backend="eager")
    built.model.forward = functools.wraps(compiled)(lambda *values, **named: compiled(*values, **named))
    return built


@pytest.fixture(scope="module")
def hidden():
    """Compiled out of sight, and run once without any method, with the cache that runs have."""
    torch._dynamo.reset()
    built = out_of_sight()
    plainly(built, FEW)
    built.generate(max_new_tokens=FEW)
    yield built
    torch._dynamo.reset()


@pytest.fixture
def unused():
    """Compiled out of sight, and never run."""
    return out_of_sight()


def test_a_pass_without_the_hooks_is_an_error_and_no_other_text(hidden):
    with pytest.raises(RuntimeError, match=r"edits and readings were not carried out .* compiled inside a function"):
        hidden.generate(["deco"], max_new_tokens=FEW)


def right_or_refused(call, expected, tolerance):
    """Torch compiles anew where a layer's configuration has changed; whether it does is its own affair.

    Any error counts as refused: torch also fails to compile the tests' own checks of shapes.
    """
    try:
        found = call()
    except Exception:
        return True
    return difference(found, expected) <= tolerance * scale(expected)


@pytest.mark.parametrize(
    ("which", "method"), [("hidden", "pai"), ("unused", "vsv")], ids=["after_a_plain_run", "at_once"]
)
def test_a_method_on_passes_compiled_out_of_sight_is_right_or_refused_and_leaves_plain_runs_alone(
    which, method, expected, request
):
    """A run never compiles its own hooks into a model: they would act in plain runs after it."""
    model, short = request.getfixturevalue(which), {"max_new_tokens": FEW}
    assert right_or_refused(lambda: model.logits([method], **short), expected[1][method][:, :FEW], 1e-5)
    plain = expected[0].plain()[:, :FEW]
    assert difference(model.logits(**short), plain) <= 1e-5 * scale(plain)


def test_scoring_by_passes_compiled_out_of_sight_is_right_or_refused(hidden, expected):
    plain, ids = expected[0], torch.full((3, FEW), 9)
    risk = lambda one: veridical.score(one.lvlm, one.inputs, ids, ["image_attention"])["image_attention"]
    assert right_or_refused(lambda: risk(hidden), risk(plain), 1e-4)
    found, wanted = hidden.logits(max_new_tokens=FEW), plain.plain()[:, :FEW]
    assert difference(found, wanted) <= 1e-5 * scale(wanted)


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
