"""HELPD's tries, cached, against a pass over prompt and whole text for each: the same ρ at every step.

Tolerance 1e-5 of the largest ρ of the step, and of the scores: attention is float32 after the softmax, and ρ has up to
ten factors of it. Where the model is float32 too, ρ has 5e-5 (1.1e-5 was found), and the scores 1e-5 as elsewhere.
"""

from dataclasses import dataclass, field

import pytest
import torch
from transformers import LogitsProcessor

import veridical
from veridical.datasets.world import scene
from veridical.decoders.gate import Gate
from veridical.decoders.helpd import HELPD
from veridical.models import EMBEDDED
from veridical.pipelines.engine.lookahead import Lookahead, twin
from veridical.pipelines.engine.rows import chosen_of

from ..contract.setting import scale
from ..families.models import tiny_families, tiny_more
from ..families.models.tiny_prompts import ROW_NAMES, several_images, text_only, two_prompts
from ..families.models.tiny_prompts import batch as family_batch
from ..families.models.tiny_prompts import prompt as family_prompt
from ..families.setting import setting
from .test_methods import HEADS
from .tiny import batch, prompt, tiny_llava

TOLERANCE, ROUNDED = 1e-5, 5e-5
STEPS = 14  # more than the window, and than the first tokens with a rule of their own
LARGE = {"scale": 700.0, "vision_scale": 700.0, "candidates": 3}  # products of few factors are about 1
SLIDING = ("gemma3",)  # a window of 8 keys, shorter than the prompts

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


@dataclass(frozen=True)
class Beside(HELPD):
    """HELPD that asks the uncached passes too, and keeps what both say of each step."""

    fast: list = field(default_factory=list)
    slow: list = field(default_factory=list)
    scores: list = field(default_factory=list)

    def rescore(self, lvlm, inputs, ahead, logits, step):
        slow = super().rescore(lvlm, inputs, lambda *given: None, logits, step)
        fast = super().rescore(lvlm, inputs, ahead, logits, step)
        self.scores.append((fast, slow))
        return fast

    def judge(self, *given):
        self.fast.append(super().judge(*given))
        return self.fast[-1]

    def uncached(self, *given):
        self.slow.append(super().uncached(*given))
        return self.slow[-1]

    def hold(self, steps, rows=slice(None), tolerance=TOLERANCE):
        """Every step was cached, and agrees."""
        assert len(self.fast) == len(self.slow) == len(self.scores) == steps
        for index, (fast, slow) in enumerate(zip(self.fast, self.slow, strict=True)):
            fast, slow = fast[rows].double(), slow[rows].double()
            error = float((fast - slow).abs().max() / slow.abs().max())
            assert error <= tolerance, f"step {index}: ρ is off by {error:.1e}"
        for fast, slow in self.scores:
            assert torch.equal(fast[rows].isfinite(), slow[rows].isfinite())
            finite = fast[rows].isfinite()
            assert float((fast[rows] - slow[rows])[finite].abs().max()) <= TOLERANCE * scale(slow[rows])


@dataclass(frozen=True)
class Uncached(HELPD):
    """HELPD without a cache, as it is computed where none can follow."""

    def rescore(self, lvlm, inputs, ahead, logits, step):
        return super().rescore(lvlm, inputs, lambda *given: None, logits, step)


class Tiny:
    """Float64, but for eager attention, whose own softmax of padding is NaN there."""

    def __init__(self, heads, kv_heads, attention=None):
        self.model = tiny_llava(heads, kv_heads, attention=attention)
        self.model = self.model.double() if attention is None else self.model
        self.tolerance = TOLERANCE if attention is None else ROUNDED
        self.lvlm = veridical.LVLM(self.model)
        prompts = [prompt(self.model, 3, 5, 1), prompt(self.model, 6, 7, 2)]
        self.inputs = batch(prompts)

    def generate(self, decoder, **options):
        options = {"max_new_tokens": STEPS, "do_sample": False, **options}
        return veridical.generate(self.lvlm, self.inputs, [decoder], **options)


@pytest.fixture(params=[*HEADS, "eager"], scope="module")
def tiny(request):
    return Tiny(8, 2, attention="eager") if request.param == "eager" else Tiny(*HEADS[request.param])


@pytest.fixture(scope="module")
def gqa():
    return Tiny(*HEADS["gqa"])


@pytest.fixture
def reads(monkeypatch):
    """How many tokens of text there were at each pass over prompt and text."""
    seen, read = [], Lookahead._read

    def counted(self, new):
        seen.append(new.shape[1])
        read(self, new)

    monkeypatch.setattr(Lookahead, "_read", counted)
    return seen


# ---------------------------------------------------------------------- the same numbers

OPTIONS = [
    {},
    {"window": 4, "first_tokens": "vep"},
    {"window": 1, "first_tokens": "vep"},
    {"window": 512, "first_tokens": "vep", "scale": 50.0, "vision_weight": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_cached_try_is_a_pass_over_the_whole_text(tiny, options, reads):
    decoder = Beside(**{**LARGE, **options})
    tiny.generate(decoder)
    decoder.hold(STEPS, tolerance=tiny.tolerance)
    assert reads == [0]


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_a_run_is_the_uncached_run(tiny, options):
    """Token by token: nothing else of the run knows how ρ was found."""
    one, other = (tiny.generate(kind(**{**LARGE, **options}), return_logits=True) for kind in (HELPD, Uncached))
    assert torch.equal(one.ids, other.ids)
    finite = other.logits.isfinite()
    assert torch.equal(one.logits.isfinite(), finite)
    assert float((one.logits - other.logits)[finite].abs().max()) <= TOLERANCE * scale(other.logits)


@pytest.mark.parametrize("beams", [2, 3])
def test_tries_follow_the_beams(tiny, beams, reads, monkeypatch):
    origins = []

    def noted(*given):
        origins.append(chosen_of(*given)[0])
        return chosen_of(*given)

    monkeypatch.setattr("veridical.pipelines.engine.lookahead.chosen_of", noted)
    decoder = Beside(**LARGE, window=4, first_tokens="vep")
    tiny.generate(decoder, num_beams=beams)
    decoder.hold(STEPS, tolerance=tiny.tolerance)
    assert reads == [0]
    assert any(not torch.equal(rows, rows.sort().values) for rows in origins) or any(
        len(rows.unique()) < len(rows) for rows in origins[1:]
    ), "no beam went on with another's text"


def test_tries_follow_what_is_drawn(gqa, reads):
    decoder = Beside(**LARGE, window=4)
    gqa.generate(decoder, do_sample=True, temperature=3.0, seed=[3, 4])
    decoder.hold(STEPS)
    assert reads == [0]


# ---------------------------------------------------------------------- the cached path is what ran


def fed(model, run):
    """Positions that each pass of the decoder was fed, of the model itself and of its twin, in order."""
    own, twins = [], []
    decoder = model.get_decoder()

    def count(module, args, kwargs):
        given = kwargs.get("inputs_embeds") if kwargs.get("inputs_embeds") is not None else kwargs["input_ids"]
        (own if module is decoder else twins).append(given.shape[1])

    hook = decoder.register_forward_pre_hook(count, with_kwargs=True)  # a copied module has the same hooks
    try:
        run()
    finally:
        hook.remove()
    return own, twins


def test_one_prompt_and_then_the_candidates_alone_are_read(gqa):
    length = gqa.inputs["input_ids"].shape[1]
    own, twins = fed(gqa.model, lambda: gqa.generate(HELPD(candidates=3)))
    assert own == [length] + [1] * (STEPS - 1)
    assert [count for count in twins if count != 2] == [length] + [3] * STEPS  # 2: the check of a new LVLM
    _, twins = fed(gqa.model, lambda: gqa.generate(Uncached(candidates=3), max_new_tokens=2))
    assert [count for count in twins if count != 2] == [length + 1, length + 2]


# ---------------------------------------------------------------------- what was not tried


class Force(LogitsProcessor):
    """Chooses the least likely token at these steps."""

    def __init__(self, steps):
        self.steps, self.at = steps, -1

    def __call__(self, input_ids, scores):
        self.at += 1
        if self.at not in self.steps:
            return scores
        token = torch.full((len(scores), 1), 100 + self.at)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_token_that_was_not_tried_lets_the_text_be_read_anew(gqa, beams, reads):
    decoder = Beside(**LARGE, window=4, first_tokens="vep")
    gqa.generate(decoder, num_beams=beams, logits_processor=[Force([3, 6, 7])])
    decoder.hold(STEPS)
    assert reads == [0, 4, 7, 8]


def test_steps_at_which_it_was_not_asked_are_read(gqa, reads):
    decoder = Beside(**LARGE, window=4, first_tokens="vep")
    gqa.generate(Gate(decoder, "position", 0.11))  # t / (t + 32) of token t: open from t = 4 on
    decoder.hold(STEPS - 4)
    assert reads == [4]


def test_a_text_that_grew_by_more_than_a_try_is_read(gqa, reads):
    """A gate was closed in between: what was tried behind the shorter text says nothing of the longer one."""
    other, text = twin(gqa.lvlm), torch.tensor([[50, 60, 70, 80], [55, 65, 75, 85]])
    tries = torch.tensor([[70, 71], [75, 76]])
    ahead = Lookahead(other, gqa.inputs, 4)
    for length in (2, 4):
        rows, image = ahead(text[:, :length], tries)
    fresh = Lookahead(other, gqa.inputs, 4)(text, tries)
    assert reads == [2, 4, 4]
    assert torch.equal(rows, fresh[0])
    assert torch.equal(image, fresh[1])
    assert rows.shape == (2, 2, 4, gqa.inputs["input_ids"].shape[1] + 5)


def test_a_row_that_has_ended_costs_no_pass(reads):
    """Its padding was not tried, and nobody looks at what it says."""
    tiny = Tiny(*HEADS["gqa"])
    ids = tiny.generate(HELPD(**LARGE)).ids
    end = next(int(t) for t in ids[0, 2:6] if t not in ids[1] and t not in ids[0, :2])
    at = ids[0].tolist().index(end)
    tiny.model.generation_config.eos_token_id = end
    reads.clear()
    decoder = Beside(**LARGE)
    out = tiny.generate(decoder)
    assert torch.equal(out.ids[1], ids[1])
    assert torch.equal(out.ids[0, : at + 1], ids[0, : at + 1])
    assert (out.ids[0, at + 1 :] == tiny.lvlm.pad_token).all()
    decoder.hold(STEPS, rows=slice(1, 2))
    assert reads == [0]


def test_which_try_a_row_goes_on_with():
    before = torch.tensor([[5], [6], [5], [5]])  # two samples of two rows
    tried = torch.tensor([[1, 2], [3, 2], [4, 9], [4, 9]])
    now = torch.tensor([[6, 2], [5, 2], [5, 9], [5, 1]])
    row, at = chosen_of(before, tried, now, 2)
    assert row.tolist() == [1, 0, 2, -1]  # 1 was tried after 5 in the other sample only
    assert at.tolist() == [1, 1, 1, -1]


# ---------------------------------------------------------------------- families


def hold_family(lvlm, inputs, steps=4, **options):
    decoder = Beside(candidates=3, scale=500.0, vision_scale=500.0, window=3, first_tokens="vep")
    veridical.generate(lvlm, inputs, [decoder], max_new_tokens=steps, do_sample=False, **options)
    decoder.hold(steps)


@pytest.mark.parametrize("name", [name for name in tiny_families.FAMILIES if name not in SLIDING])
@pytest.mark.parametrize("beams", [1, 2])
def test_every_family_is_cached(name, beams):
    case = setting(name, torch.float64)
    hold_family(case.lvlm, case.inputs, num_beams=beams)


@pytest.mark.parametrize("name", [name for name in tiny_families.FAMILIES if name not in SLIDING])
def test_every_family_is_read_anew_in_the_middle(name):
    case = setting(name, torch.float64)
    hold_family(case.lvlm, case.inputs, num_beams=2, logits_processor=[Force([1])])


@pytest.mark.parametrize("name", [name for name in tiny_families.FAMILIES if name not in SLIDING])
def test_every_family_with_several_images_or_none(name):
    case = setting(name)
    if not case.family.one_image:
        hold_family(case.lvlm, several_images(case.family))
    if name != "paligemma":  # without token types its prompt sees what is appended, if nothing hides it
        hold_family(case.lvlm, family_batch(case.family, [text_only(case.family, 4), text_only(case.family, 6)]))


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_text_right_behind_an_image_stands_where_the_image_ends(name):
    """The image's last token has a position on each of three axes; the text goes on behind the largest."""
    case = setting(name)
    one = family_prompt(case.family, 2, 0, wide=True)
    rows = {key: value[:, :-1] for key, value in one.items() if key in ROW_NAMES}
    assert rows["input_ids"][0, -1] == case.lvlm.image_token
    hold_family(case.lvlm, {**one, **rows})


@pytest.mark.parametrize("name", ["mistral3", "glm4v"])
def test_further_families_are_cached(name):
    family = tiny_more.MORE[name]
    hold_family(veridical.LVLM(family.build()), family_batch(family, two_prompts(family)))


@pytest.mark.parametrize("build", [tiny_families.gemma3, tiny_families.paligemma2, tiny_more.aya_vision])
def test_a_window_is_followed_until_the_text_outgrows_it(build, monkeypatch, reads):
    """28 keys: a prompt of 24, tries at positions 25 to 28, and no cache for the fifth token."""
    kind = {"gemma3": "gemma3", "paligemma2": "paligemma"}.get(build.__name__)
    family = tiny_families.FAMILIES[kind] if kind else tiny_more.MORE["aya_vision"]
    inputs = family_batch(family, two_prompts(family))
    length = inputs["input_ids"].shape[1]
    for module in (tiny_families, tiny_more):
        monkeypatch.setattr(module, "WINDOW", length + 4)
    lvlm = veridical.LVLM(build("eager" if build.__name__ == "paligemma2" else None))
    decoder = Beside(candidates=3, scale=500.0, vision_scale=500.0, window=3, first_tokens="vep")
    veridical.generate(lvlm, inputs, [decoder], max_new_tokens=6, do_sample=False)
    assert (len(decoder.fast), reads) == (4, [0])
    decoder.slow[4:], decoder.scores[4:] = [], []
    decoder.hold(4)


@pytest.mark.parametrize("name", SLIDING)
def test_where_a_window_slides_each_try_is_a_pass(name, reads):
    case = setting(name)
    one, other = (case.generate([kind(candidates=3)], return_logits=True) for kind in (HELPD, Uncached))
    assert torch.equal(one.logits, other.logits)
    assert reads == [0], "it looked once whether a cache would do"


# ---------------------------------------------------------------------- the embedded model


@pytest.fixture(scope="module")
def embedded():
    if not (EMBEDDED / "config.json").exists():
        pytest.skip("the embedded model is not here")
    lvlm = veridical.load("embedded", device="cpu")
    lvlm.model.generation_config.eos_token_id = lvlm.text_config.eos_token_id = None
    questions = ["Please describe this image in detail.", "Is there a dog in the image?", "What is this?"]
    return lvlm, lvlm.prepare([scene("test", index).image for index in range(3)], questions)


SHORT = {"window": 5, "first_tokens": "vep", "vision_scale": 1000.0}


@pytest.mark.parametrize(("options", "beams"), [({}, 1), (SHORT, 1), (SHORT, 2)], ids=str)
def test_the_embedded_model_is_followed_for_24_tokens(embedded, options, beams, reads):
    lvlm, inputs = embedded
    decoder = Beside(candidates=3, **options)
    veridical.generate(lvlm, inputs, [decoder], max_new_tokens=24, do_sample=False, num_beams=beams)
    decoder.hold(24, tolerance=ROUNDED)
    assert reads == [0]


def test_logits_of_the_embedded_model_are_those_of_the_uncached_run(embedded):
    lvlm, inputs = embedded
    options = {"return_logits": True, "max_new_tokens": 24, "do_sample": False}
    one, other = (veridical.generate(lvlm, inputs, [kind(candidates=3)], **options) for kind in (HELPD, Uncached))
    assert torch.equal(one.ids, other.ids)
    finite = other.logits.isfinite()
    assert torch.equal(one.logits.isfinite(), finite)
    assert float((one.logits - other.logits)[finite].abs().max()) <= TOLERANCE * scale(other.logits)
