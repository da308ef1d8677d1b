"""Which pairs of decoders are refused, which are warned of, with what reason; and that all others are silent."""

import math
import warnings
from itertools import permutations

import pytest
import torch

import veridical
from veridical.decoders.dola import DoLa, divergence, jensen_shannon
from veridical.decoders.pai import guide
from veridical.decoders.vista import SLA
from veridical.pipelines import compatibility
from veridical.pipelines.chain import make_chain
from veridical.pipelines.engine.declarations import Step
from veridical.pipelines.registry import DECODERS

from ...contract import table

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.compatibility.DoubtfulPair")

CONTRASTS = ["vcd", "icd", "m3id", "avc", "agla", "rbd", "pai", "imbalanced", "ritual", "sid", "code", "marine"]
GUIDES = ["m3id", "pai", "imbalanced"]
MIXED = ("sla", "vista", "deco")
INSIDE = ["var", "vhr", "vsv", "vista", "pai", "imbalanced", "vaf", "heads_guided", "spin"]
INSIDE += ["project_away", "nullu", "adhh", "vti"]

REFUSED = {
    **dict.fromkeys(permutations(GUIDES, 2), "same text is subtracted twice"),
    **dict.fromkeys(permutations(["vsv", "vista"]), "both steer every layer by the same vectors"),
    **dict.fromkeys(permutations(["sla", "vista"]), "one of them with gamma=0.51"),
    **{("dola", other): "put dola last" for other in [*CONTRASTS, *MIXED]},
    ("dola", "dola"): "an early layer would be taken again",
}
DOUBTFUL = {
    **{pair: "two contrasts" for pair in permutations(CONTRASTS, 2) if pair not in REFUSED},
    **{(one, other): "early layers, which know no contrast" for one in CONTRASTS for other in ("dola", "deco")},
    **{("deco", other): "deco makes logits higher" for other in CONTRASTS},
    **{pair: "what earlier layers say" for one in ("sla", "vista") for pair in permutations(["deco", one])},
    **{pair: "plain model's attention" for one in INSIDE for pair in permutations(["helpd", one])},
    **{pair: "plain model's attention" for one in INSIDE for pair in permutations(["opera", one])},
    **{(first, other): "only among the 5 tokens"
       for first in ("helpd", "opera") for other in CONTRASTS if other not in INSIDE},
}


def make(*names):
    return [DECODERS.make(name) for name in names]


@pytest.mark.parametrize("pair", REFUSED, ids="+".join)
def test_a_pair_whose_meaning_is_broken_is_refused_with_the_reason(pair):
    with pytest.raises(ValueError, match=REFUSED[pair]) as error:
        compatibility.check(make(*pair))
    assert str(error.value).startswith("+".join(pair))


@pytest.mark.parametrize("pair", DOUBTFUL, ids="+".join)
def test_a_doubtful_pair_is_warned_of_with_the_reason(pair):
    with pytest.warns(compatibility.DoubtfulPair, match=DOUBTFUL[pair]):
        compatibility.check(make(*pair))


def test_all_other_pairs_pass_silently():
    """Methods twice are told of below; a gate is what it gates."""
    names = [name for name in DECODERS.own if name != "gate"]
    quiet = [pair for pair in permutations(names, 2) if pair not in {**REFUSED, **DOUBTFUL}]
    assert len(quiet) > 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pair in quiet:
            compatibility.check(make(*pair))


@pytest.mark.parametrize("name", ["vcd", "pai", "var", "vhr", "vsv", "sla", "vista", "deco", "helpd"])
def test_a_method_twice_is_doubtful(name):
    with pytest.warns(compatibility.DoubtfulPair, match=f"{name} twice|two contrasts"):
        compatibility.check(make(name, name))


@pytest.mark.parametrize("name", DECODERS.own)
def test_a_method_at_its_neutral_strength_is_in_nobodys_way(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in DECODERS.own:
            compatibility.check([table.neutral(name), table.acting(other)])
            compatibility.check([table.acting(other), table.neutral(name)])


@pytest.mark.parametrize("name", ["pai", "imbalanced"])
def test_without_guidance_attention_boosts_go_with_any_contrast(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in CONTRASTS:
            if other != name:
                compatibility.check(make(f"{name}:gamma=1", other))
                compatibility.check(make(other, f"{name}:gamma=1"))


def test_two_plausibility_cuts_are_warned_of_and_one_is_not():
    with pytest.warns(compatibility.DoubtfulPair, match=r"VCD\(.* and DoLa\(.* each cut by plausibility"):
        compatibility.check(make("vcd", "dola"))
    records = [reason for _, reason in compatibility.verdicts(make("vcd:beta=0", "dola"))]
    assert not any("plausibility" in reason for reason in records)


def test_other_windows_of_early_layers_can_be_mixed_twice():
    assert not list(compatibility.verdicts(make("sla:window=3", "vista:window=5,strength=0")))


@pytest.mark.parametrize("first", ["vcd", "deco", "helpd", "agla"])
def test_the_released_codes_dola_cannot_follow_what_rules_tokens_out(first):
    with pytest.raises(ValueError, match="infinite for every layer"):
        compatibility.check([*make(first), DoLa(mode="official")])


def test_a_gate_counts_as_what_it_gates():
    with pytest.raises(ValueError, match=r"pai\+m3id: both push away"):
        compatibility.check(make("gate:decoder=pai", "m3id"))


def test_two_images_at_once_are_too_many_for_a_matcher():
    for chain in (["vicrop", "agla"], ["vicrop", "vsv", "agla:beta=0"], ["vicrop", "gate:decoder=agla"]):
        with pytest.raises(ValueError, match=r"vicrop\+agla: vicrop asks about two images at once"):
            compatibility.refuse(make_chain(chain))
    compatibility.refuse(make_chain(["vicrop", "agla:alpha=0,beta=0"]))
    compatibility.refuse(make_chain(["vicrop", table.acting("agla")]))
    compatibility.refuse(make_chain(["mvp", "agla"]))


# -- the reasons are true ------------------------------------------------------------------------------------------
def test_two_guidances_against_one_text_are_one_with_the_product():
    """γ = 1.1 after γ = 1.2 is γ = 1.32."""
    with_image, without_image = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0)).unbind()
    twice = guide(guide(with_image, without_image, 1.2, 0.0), without_image, 1.1, 0.0)
    torch.testing.assert_close(twice.softmax(1), guide(with_image, without_image, 1.32, 0.0).softmax(1))


def test_two_equal_mixes_are_one_of_the_combined_share():
    class Plain:
        head = staticmethod(lambda states: states)
        soft_cap = None

    step = Step(readings={"sla": {0: torch.tensor([[0.5, 1.0, 1.5]])}})
    logits = torch.tensor([[2.0, 1.0, 3.0]])
    twice = SLA(0.3).mix(Plain, SLA(0.3).mix(Plain, logits, step), step)
    torch.testing.assert_close(twice, SLA(0.51).mix(Plain, logits, step))


def test_the_released_divergence_is_infinite_for_every_layer_once_a_token_is_out():
    p = torch.tensor([-math.inf, 1.0, 0.0]).softmax(0)
    for q in (torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.1, 0.3])):
        assert divergence((p + q) / 2, p) == math.inf
        assert jensen_shannon(p, q).isfinite()


# -- where it is said ----------------------------------------------------------------------------------------------
def test_it_is_said_before_anything_runs(tiny, monkeypatch):
    monkeypatch.setattr(tiny.model, "generate", None)
    with pytest.raises(ValueError, match="put dola last"):
        tiny.generate(["dola", "vcd"])
    with pytest.raises(ValueError, match="put dola last"):
        veridical.mitigate(["dola", "vcd"])


def test_a_warning_points_at_the_caller():
    with pytest.warns(compatibility.DoubtfulPair) as records:
        compatibility.check(make("vsv", "vsv"))
    assert records[0].filename == __file__
