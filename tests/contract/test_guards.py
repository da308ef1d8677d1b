"""Tests that the other tests are about something: the hooks are called, where they should be, and only there."""

from collections import Counter

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from veridical.pipelines.engine import attention
from veridical.pipelines.engine.declarations import AttentionEdit, Branch, HeadEdit, LogitsEdit, Reading, ResidualEdit

from . import setting as settings
from . import table
from .setting import STEPS, Declares, Wrapped, difference, readings_only, scale

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")

RECOMPUTED = 2e-6  # of the largest logit: eight layers' attention in another order of summation, up to 1e-6 measured

same = lambda value, *_: value
SITES = {
    "scores": lambda layers: AttentionEdit(layers, same, on="scores"),
    "probabilities": lambda layers: AttentionEdit(layers, same),
    "last_row_scores": lambda layers: AttentionEdit(layers, same, on="scores", queries="last"),
    "last_row_probabilities": lambda layers: AttentionEdit(layers, same, queries="last"),
    "heads": lambda layers: HeadEdit(layers, same),
    "input": lambda layers: ResidualEdit(layers, same, at="input"),
    "mlp": lambda layers: ResidualEdit(layers, same, at="mlp"),
    "block": lambda layers: ResidualEdit(layers, same, at="block"),
    "logits": lambda layers: LogitsEdit(same),
}
LOOKS = {
    "attention": lambda call: call.probabilities(slice(-1, None)).sum(-1),
    "heads": lambda heads: heads.sum(-1),
    "input": lambda hidden: hidden[:, -1],
    "block": lambda hidden: hidden[:, -1],
}


def everywhere(setting):
    return range(len(setting.lvlm.layers))


@pytest.fixture
def entered(monkeypatch):
    """How often each layer's attention went through the package's function."""
    counts, inner = Counter(), attention._attention

    def counting(module, *given, **named):
        counts[module.layer_idx] += 1
        return inner(module, *given, **named)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, attention.NAME, counting)
    return counts


# ---------------------------------------------------------------------- nothing declared, nothing changed


@pytest.mark.parametrize("decoders", [(), "greedy"], ids=["none", "greedy"])
def test_without_declarations_logits_are_those_of_transformers_to_the_last_bit(setting, decoders):
    theirs = setting.model.generate(
        **setting.inputs, max_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    assert torch.equal(setting.logits(decoders), torch.stack(theirs.logits, 1))


@pytest.mark.parametrize("of", LOOKS)
def test_looking_in_every_layer_leaves_the_logits_as_they_are_to_the_last_bit(setting, of):
    assert torch.equal(
        readings_only(setting, [Reading("look", everywhere(setting), LOOKS[of], of=of)]), setting.plain()
    )


def test_looking_everywhere_at_once_leaves_the_logits_as_they_are_to_the_last_bit(setting):
    looks = [Reading(of, everywhere(setting), LOOKS[of], of=of) for of in LOOKS]
    assert torch.equal(readings_only(setting, looks), setting.plain())


@pytest.mark.parametrize("site", SITES)
def test_an_identity_edit_in_every_layer_changes_nothing(setting, site):
    """Attention alone is computed anew, by a softmax in place of a fused kernel; all else comes out to the last bit."""
    plain = setting.plain()
    edited = setting.logits([Declares([SITES[site](everywhere(setting))])])
    assert difference(edited, plain) <= (RECOMPUTED * scale(plain) if "scores" in site or "prob" in site else 0)


def test_identity_edits_of_every_kind_at_once_change_nothing(setting):
    plain = setting.plain()
    edited = setting.logits([Declares([make(everywhere(setting)) for make in SITES.values()])])
    assert difference(edited, plain) <= RECOMPUTED * scale(plain)


@pytest.mark.parametrize("site", SITES)
def test_an_identity_edit_of_an_eager_model_changes_nothing(site):
    """1e-5: a touched layer of an eager model takes its heads from sdpa."""
    eager = settings.tiny(8, 2, attention="eager")
    assert eager.lvlm.attention_implementation == "eager"
    plain = eager.logits()
    edited = eager.logits([Declares([SITES[site](everywhere(eager))])])
    assert difference(edited, plain) <= 1e-5 * scale(plain)


@pytest.mark.parametrize("site", SITES)
def test_a_branch_with_the_same_inputs_says_the_same_as_the_main_rows(tiny, site):
    """Every kind of edit on two blocks: what reaches the contrast is the same on both sides, to float32 rounding."""
    seen = []

    def contrast(logits, step):
        seen.append(difference(step.branches["twin"], step.branches["main"]))
        return logits

    edits = [SITES[site](everywhere(tiny)), Branch("twin", tiny.inputs), LogitsEdit(contrast)]
    tiny.logits([Declares(edits)])
    assert len(seen) == STEPS
    assert max(seen) <= 1e-5 * scale(tiny.plain())


# ---------------------------------------------------------------------- what is declared is called


@pytest.mark.parametrize("site", [site for site in SITES if site != "logits"])
def test_a_declared_edit_is_called_in_its_layers_at_every_step(tiny, site):
    calls = Counter()

    def counted(value, call):
        calls[call.layer] += 1
        return value

    edit = settings.replace(SITES[site]([1, 4]), apply=counted)
    tiny.generate([Declares([edit])])
    assert calls == {1: STEPS, 4: STEPS}


@pytest.mark.parametrize("of", LOOKS)
def test_a_declared_reading_is_called_in_its_layers_at_every_step(tiny, of):
    calls = []

    def counted(value):
        calls.append(value)
        return LOOKS[of](value)

    readings_only(tiny, [Reading("look", [0, 3, 7], counted, of=of)])
    assert len(calls) == 3 * STEPS


def test_every_edit_that_a_method_declares_is_called_at_every_step(setting, name):
    """Fails if a hook was never put in place, whatever the logits say.

    Once per step; once more where the prompts of a row block are computed in a pass of their own, before the loop.
    """
    calls, declared = Counter(), []

    def around(declaration, call):
        declared.append(declaration)
        number = len(declared) - 1

        def counted(*given):
            calls[number] += 1
            return call(*given)

        return counted

    setting.generate([Wrapped(setting.acting(name), around)])
    layers = {n: len(getattr(one, "layers", [0])) for n, one in enumerate(declared)}
    assert calls.keys() == {n for n, count in layers.items() if count}
    assert all(calls[n] in (STEPS * layers[n], (STEPS + 1) * layers[n]) for n in calls)
    assert bool(declared) == table.entry(name).acts


def test_an_edit_reaches_the_logits_from_every_layer_and_site(tiny):
    """A counted call whose result is thrown away would pass the tests above."""
    plain = tiny.plain()
    for site, make in SITES.items():
        if site in ("scores", "last_row_scores", "logits"):
            change = lambda value, *_: value * 1.5
        elif "probabilities" in site:
            change = lambda value, *_: value.flip(1)  # heads change places
        else:
            change = lambda value, *_: value.roll(1, -1)
        for layer in ([0], [7]):
            edited = tiny.logits([Declares([settings.replace(make(layer), apply=change)])])
            assert difference(edited, plain) > 1e-3, f"{site}, layer {layer}"


# ---------------------------------------------------------------------- and nowhere else


@pytest.mark.parametrize("declare", [
    lambda layers: HeadEdit(layers, same),
    lambda layers: AttentionEdit(layers, same),
    lambda layers: Reading("look", layers, LOOKS["attention"]),
    lambda layers: Reading("look", layers, LOOKS["heads"], of="heads"),
], ids=["heads", "attention", "attention_reading", "heads_reading"])  # fmt: skip
def test_layers_that_no_method_touches_never_enter_the_packages_attention(setting, entered, declare):
    setting.generate([Declares([declare([2, 5])])])
    assert entered == {2: STEPS, 5: STEPS}


@pytest.mark.parametrize("site", ["input", "mlp", "block", "logits"])
def test_edits_outside_attention_never_enter_the_packages_attention(setting, entered, site):
    setting.generate([Declares([SITES[site](everywhere(setting))])])
    assert entered == {}


def test_methods_that_leave_attention_alone_never_enter_the_packages_attention(setting, entered):
    setting.generate([])
    for chain in (["vcd"], ["vsv"], ["sla"], ["vista"]):
        setting.generate(chain)
    assert entered == {}


def test_the_packages_attention_is_asked_for_by_name_only_while_a_run_lasts(setting):
    seen = []

    def look(value, call):
        seen.append([layer.self_attn.config._attn_implementation for layer in setting.lvlm.layers])
        return value

    setting.generate([Declares([HeadEdit([3], look)])])
    own = setting.lvlm.attention_implementation
    assert all(names == [own] * 3 + [attention.NAME] + [own] * (len(names) - 4) for names in seen)
    assert setting.model.config.get_text_config()._attn_implementation == own


def test_a_layer_that_asks_for_the_packages_attention_outside_a_run_says_so(tiny):
    call = ALL_ATTENTION_FUNCTIONS[attention.NAME]
    with pytest.raises(RuntimeError, match=r"outside veridical\.generate"):
        call(tiny.lvlm.layers[0].self_attn, *[torch.zeros(1, 8, 1, 8)] * 3, None)
