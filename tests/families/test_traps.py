"""The traps of architecture §9, one named test each, on the families that set them."""

import copy

import pytest
import torch

import veridical
from veridical.decoders.vcd import VCD, diffused
from veridical.decoders.vista import VISTA, VSV
from veridical.pipelines.engine.declarations import AttentionEdit, Branch, LogitsEdit, Reading
from veridical.pipelines.engine.run import prefill
from veridical.pipelines.model import families
from veridical.pipelines.registry import DECODERS

from ..contract.setting import Declares, difference
from .models.tiny_families import FAMILIES, paligemma2
from .models.tiny_processors import processor
from .models.tiny_prompts import batch, other_image, prompt, several_images, text_only, two_prompts
from .models.tiny_weights import WINDOW
from .setting import (  # fmt: skip
    STEPS,
    Setting,
    appended,
    cast,
    forward,
    setting,
    transformers_generate,
    transformers_logits,
    watch,
)

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def exact_setting(name):
    return setting(name, torch.float64)


# ---------------------------------------------------------------------- Qwen: rope_deltas


@pytest.mark.parametrize("name", QWEN)
def test_qwen_rope_deltas_are_those_of_all_rows_after_a_prefill(name):
    """Positions an image saves: 2 × 4 positions span 4, 2 × 2 span 2; an image-free row saves none.

    VISTA's prefill of other rows comes first; what decoding uses must be the decoding rows' own.
    """
    case, seen = exact_setting(name), []

    def look(logits, step):
        seen.append(case.model.model.rope_deltas.flatten().tolist())
        return logits

    free = Branch("free", case.lvlm.image_free(case.inputs))
    case.generate([VISTA(), VCD(), Declares([free, LogitsEdit(look)])])
    assert seen == [[-4, -2, -4, -2, 0, 0]] * STEPS


@pytest.mark.parametrize("name", QWEN)
def test_qwen_steered_after_a_prefill_is_uncached_passes(name):
    """The same seen from outside: two steered runs, one with the cache and one that feeds everything at every step."""
    case = exact_setting(name)
    cached = case.logits([VSV()])
    assert difference(cached, case.logits([VSV()], use_cache=False)) <= 1e-5
    assert difference(cached, case.plain()) > 1e-3


@pytest.mark.parametrize("name", QWEN)
def test_qwen_rope_deltas_are_given_back(name):
    """Who holds a cache to go on with must find its positions again after a run, a prefill and a score of ours."""
    case = setting(name)
    first = transformers_generate(case.model, case.inputs, max_new_tokens=2)
    before = case.model.model.rope_deltas.clone()

    def go_on():
        ids = first.sequences
        more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        more["attention_mask"][:, : case.inputs["input_ids"].shape[1]] = case.inputs["attention_mask"]
        name = "cache" if hasattr(first, "cache") else "past_key_values"  # transformers 5.20
        cache = {name: copy.deepcopy(first[name])}
        return case.model.generate(**more, **cache, max_new_tokens=2, do_sample=False)

    expected = go_on()
    text = batch(case.family, [text_only(case.family, 4), text_only(case.family, 6)])
    prefill(case.lvlm, text, [])
    veridical.score(case.lvlm, text, first.sequences[:, -2:], ["entropy"])
    case.generate([VISTA(), VCD()], inputs=case.prompts[0])
    assert torch.equal(case.model.model.rope_deltas, before)
    assert torch.equal(go_on(), expected)


# ---------------------------------------------------------------------- token types of generated tokens


@pytest.mark.parametrize(("name", "kind", "wrong"), [("paligemma", 1, 0), ("gemma3", 0, 1)])
def test_generated_tokens_get_the_kind_that_generation_gives_them(name, kind, wrong):
    """PaliGemma: suffix, or they look ahead. Gemma 3: text, or they are an image and look ahead. Others have no choice.

    Teacher forcing gives the logits of generation, and the wrong kind would show.
    """
    case = exact_setting(name)
    assert families.appended(case.model, "token_type_ids") == kind
    generation = case.generate(return_logits=True)
    chosen = generation.logits.log_softmax(-1).gather(2, generation.ids[..., None])[..., 0]
    risk = veridical.score(case.lvlm, case.inputs, generation.ids, ["token_probability"])["token_probability"]
    assert difference(-risk, chosen) <= 1e-5

    one = appended(case.family, case.prompts[0], generation.ids[0].tolist())
    right = forward(case.model, one).logits
    one["token_type_ids"][:, -STEPS:] = wrong
    assert difference(right[:, -STEPS:], forward(case.model, one).logits[:, -STEPS:]) > 1e-3


@pytest.mark.parametrize(("name", "kind"), [("paligemma", 1), ("gemma3", 0)])
def test_every_pass_over_prompt_and_text_gives_new_tokens_their_kind(name, kind):
    """Whoever makes it: teacher forcing, and methods that try candidates out."""
    case, seen = setting(name), []
    length = case.inputs["input_ids"].shape[1]

    def look(module, args, kwargs):
        kinds = kwargs.get("token_type_ids")
        if kinds is not None and kinds.shape[1] > length:
            seen.append(kinds[:, length:].unique().tolist())

    hook = case.model.base_model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        # another token than HELPD tried, so that it reads the text anew: where all that it leaves are ruled out, the
        # model's own logits are chosen from, here the least likely
        few = lambda scores: scores.isfinite().sum(1, keepdim=True) < scores.shape[1]
        untried = lambda ids, scores: torch.where(few(scores), -torch.inf, -scores)
        ids = case.generate(["helpd"], max_new_tokens=2, logits_processor=[untried]).ids
        tried = len(seen)
        veridical.score(case.lvlm, case.inputs, ids, ["entropy"])
    finally:
        hook.remove()
    assert 0 < tried < len(seen)
    assert seen == [[kind]] * len(seen)


def test_paligemma_without_token_types_is_read_as_it_computes():
    """No token types and no padding: transformers masks nothing, every position sees all others; so do readings."""
    case = exact_setting("paligemma")
    inputs = {name: value for name, value in case.prompts[0].items() if name not in ("token_type_ids", "labels")}
    identity = AttentionEdit(case.layers, lambda probabilities, call: probabilities.clone())
    edited = prefill(case.lvlm, inputs, [identity]).branches["main"]
    assert difference(edited, prefill(case.lvlm, inputs, []).branches["main"]) <= 1e-6
    first_row = Reading("first", case.layers, keep=lambda call: call.probabilities(slice(0, 1)))
    seen = prefill(case.lvlm, inputs, [first_row]).latest("first")
    assert (seen > 0).all()


def test_paligemmas_labels_ask_for_no_loss():
    """Its processor returns labels beside token types; a pass of ours has another length, and no use for them."""
    case = setting("paligemma")
    assert "labels" in case.inputs
    ids = case.generate([VSV()]).ids
    assert torch.isfinite(veridical.score(case.lvlm, case.inputs, ids, ["entropy"])["entropy"]).all()


# ---------------------------------------------------------------------- Gemma 3: the sliding window


def test_gemma3_key_columns_follow_the_sliding_window():
    """After the prompt a sliding layer has fewer keys than positions; the image is where it was in the prompt."""
    case = exact_setting("gemma3")
    image, seen = case.lvlm.image_mask(case.inputs["input_ids"]), []
    length = image.shape[1]
    keep = lambda call: torch.stack([call.image.double(), call.generated.double()], 1)
    watch(case, Reading("columns", case.layers, keep=keep), seen.append)
    shapes = set()
    for step, layers in enumerate(seen):
        whole = torch.cat([image, torch.zeros(len(image), step, dtype=torch.bool)], 1)
        new = torch.arange(length + step) >= length
        for layer, columns in layers.items():
            keys = columns.shape[-1]
            shapes.add((layer % 3 == 2, keys - step))
            assert torch.equal(columns[:, 0].bool(), whole[:, -keys:]), f"step {step}, layer {layer}"
            assert torch.equal(columns[:, 1].bool(), new[-keys:].expand(len(image), -1)), f"step {step}, layer {layer}"
    assert (False, WINDOW - 1) in shapes, "no sliding layer lost a key: the test would see nothing"
    assert length > WINDOW


def test_gemma3_means_over_the_context_count_what_the_window_let_go():
    """Lookback Lens takes a mean over image tokens. Those outside the window have attention 0, as keys or no longer."""
    case = exact_setting("gemma3")
    ids = case.generate(max_new_tokens=WINDOW).ids
    out = veridical.generate(
        case.lvlm, case.inputs, detectors=["lookback_lens"], max_new_tokens=WINDOW, do_sample=False
    )
    forced = veridical.score(case.lvlm, case.inputs, ids, ["lookback_lens"])
    assert difference(out.risk["lookback_lens"], forced["lookback_lens"]) <= 1e-5


def test_gemma3_edits_through_the_window_are_uncached_passes():
    """Image columns are emptied in every layer, sliding or not: cached keys and all keys give the same."""
    case = exact_setting("gemma3")

    def without_image(scores, call):
        return scores.masked_fill(call.image[:, None, None], -1e9)

    edit = Declares([AttentionEdit(case.layers, without_image, on="scores", queries="last")])
    cached = case.logits([edit])
    assert difference(cached, case.plain()) > 1e-3
    with_all = case.logits([Declares([AttentionEdit(case.layers, only_last(without_image), on="scores")])])
    assert difference(cached, with_all) <= 1e-5


def only_last(edit):
    """The edit of the last row, as an edit of all rows."""
    return lambda scores, call: torch.cat([scores[:, :, :-1], edit(scores[:, :, -1:], call)], 2)


# ---------------------------------------------------------------------- soft-capped scores, eager attention


@pytest.fixture(scope="module")
def capped():
    """PaliGemma 2, float64: no family of its own, for its model type and processor are PaliGemma's."""
    family, model = FAMILIES["paligemma"], paligemma2("eager").double()
    prompts = [cast(one, torch.float64) for one in two_prompts(family)]
    return Setting(family, model, veridical.LVLM(model), prompts, batch(family, prompts))


@pytest.mark.parametrize("on", ["scores", "probabilities"])
def test_soft_capped_scores_are_edited_as_they_are(capped, on):
    """1e-5: where nothing is edited eager attention softmaxes in float32, whose rounding six layers carry on."""
    assert capped.lvlm.attention_implementation == "eager"
    assert torch.equal(capped.logits(), capped.plain())
    one = capped.prompts[0]  # eager attention knows no float64 where a row is padded
    edit = AttentionEdit(capped.layers, lambda weights, call: weights.clone(), on=on)
    assert difference(capped.logits([Declares([edit])], one), transformers_logits(capped.model, one)) <= 1e-5


def test_soft_capped_attention_is_read_as_eager_attention(capped):
    one, ours = capped.prompts[0], []
    theirs = transformers_generate(capped.model, one, output_attentions=True).attentions
    last_row = Reading("rows", capped.layers, keep=lambda call: call.probabilities(slice(-1, None)))
    watch(capped, last_row, ours.append, one)
    for step, layers in enumerate(theirs):
        for layer, attention in enumerate(layers):
            assert difference(ours[step][layer], attention[:, :, -1:]) <= 1e-6, f"step {step}, layer {layer}"


def test_a_model_without_sdpa_loads_with_what_it_has(tmp_path):
    paligemma2().save_pretrained(tmp_path)
    processor("paligemma").save_pretrained(tmp_path)
    assert veridical.load(tmp_path).attention_implementation == "eager"


# ---------------------------------------------------------------------- several images


@pytest.fixture(params=FAMILIES)
def images(request):
    """A setting, and a batch of a prompt with two images and one with one."""
    case = exact_setting(request.param)
    if case.family.one_image:
        pytest.skip(f"{request.param}: {case.family.one_image}")
    two = cast(several_images(case.family, 3), torch.float64)
    return case, two, batch(case.family, [two, case.prompts[1]])


def test_several_images_in_a_prompt_are_plain_to_the_bit(images):
    case, _, both = images
    mask = case.lvlm.image_mask(both["input_ids"])
    assert mask.sum(1)[1] == case.family.image(2, False).placeholders
    assert mask.sum(1)[0] > 4
    assert torch.equal(case.logits(inputs=both), transformers_logits(case.model, both))


def test_several_images_in_a_prompt_reach_every_branch(images):
    """The second image alone is changed; what the branch says is what an uncached pass over that prompt says."""
    case, two, both = images
    changed = {**two, "pixel_values": second_image_dimmed(case.family, two["pixel_values"])}
    other, seen = batch(case.family, [changed, case.prompts[1]]), []
    see = LogitsEdit(lambda logits, step: seen.append(step.branches["other"].float()) or logits)
    case.generate([Declares([Branch("other", other), see])], inputs=both)
    assert difference(seen[0][0], forward(case.model, changed).logits[0, -1].float()) <= 1e-5
    assert difference(seen[0][0], forward(case.model, two).logits[0, -1].float()) > 1e-3
    assert difference(seen[0][1], forward(case.model, case.prompts[1]).logits[0, -1].float()) <= 1e-5


def second_image_dimmed(family, pixels):
    """The last half of the first dimension, or of the tiles: two images of the same shape."""
    out = pixels.clone()
    half = out[:, out.shape[1] // 2 :] if family.tiled else out[out.shape[0] // 2 :]
    half *= 0.3
    return out


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_several_images_in_a_batch_are_the_prompt_alone(images, mode):
    """Each beam needs its prompt's images in order; so do the rows of each branch."""
    case, two, both = images
    decoders = [VSV(), VCD()]
    together = case.generate(decoders, inputs=both, **mode).ids
    assert torch.equal(case.generate(decoders, inputs=two, **mode).ids[0], together[0])
    assert torch.equal(case.generate(decoders, inputs=case.prompts[1], **mode).ids[0], together[1])


# ---------------------------------------------------------------------- static cache, and none


def branched(case):
    """Every kind of declaration that knows key columns, on two row blocks."""
    where = lambda call: call.image[:, None, None]
    dimmed = AttentionEdit(case.layers, lambda p, call: torch.where(where(call), 0.5, 1.0) * p)
    share = Reading("share", case.layers, lambda call: (call.probabilities(call.producing) * where(call)).sum(-1))
    mix = lambda logits, step: logits + step.latest("share").mean((0, 2, 3)).to(logits)[:, None] * step.branches["vcd"]
    return [VSV(), Declares([dimmed]), VCD(beta=0), Declares([share, LogitsEdit(mix)])]


def test_a_static_cache_gives_what_a_dynamic_one_gives(exact):
    """Its keys are longer than the prompt from the start, and the mask of an unpadded prompt is absent."""
    dynamic = exact.logits(branched(exact))
    assert difference(exact.logits(branched(exact), cache_implementation="static"), dynamic) <= 1e-5
    one = exact.prompts[0]
    dynamic = exact.logits(branched(exact), inputs=one)
    assert difference(exact.logits(branched(exact), inputs=one, cache_implementation="static"), dynamic) <= 1e-5


def test_no_cache_gives_what_a_cache_gives(exact):
    cached = exact.logits(branched(exact))
    assert difference(exact.logits(branched(exact), use_cache=False), cached) <= 1e-5


# ---------------------------------------------------------------------- image tokens and nothing else


def test_blanked_image_positions_say_nothing_of_the_image(exact):
    """AVC's branch with every token blanked: Qwen3-VL adds the image again behind its first layers (DeepStack)."""
    seen = []
    see = LogitsEdit(lambda logits, step: seen.append(step.branches["avc"].float()) or logits)
    for inputs in (exact.inputs, other_image(exact.inputs)):
        exact.generate([DECODERS.make("avc:lam=1e9"), Declares([see])], inputs, max_new_tokens=1)
    assert difference(*seen) <= 1e-6


# ---------------------------------------------------------------------- rows


@pytest.mark.parametrize("name", ["smolvlm", "idefics3"])
def test_tiles_that_are_padding_stay_padding_under_noise(name):
    """These models know padding tiles by their zeros; noise would make images of them."""
    case = setting(name)
    before = case.inputs["pixel_values"]
    after = diffused(case.inputs, 500, 0)["pixel_values"]
    empty = (before == 0).all((2, 3, 4)) if before.dim() == 4 else (before == 0).flatten(2).all(2)
    assert empty.sum() == 2
    assert torch.equal((after == 0).flatten(2).all(2), empty)


def test_vcd_without_an_image_says_what_is_missing():
    case = setting("llava")
    with pytest.raises(ValueError, match="pixel_values"):
        case.generate([VCD()], inputs=text_only(case.family, 4))


@pytest.mark.parametrize("name", ["llava_next", "smolvlm", "idefics3"])
def test_a_branch_may_have_images_of_more_tiles(name):
    """And so more image positions; tiles that the main rows lack are padding there."""
    case = exact_setting(name)
    narrow, wide = ([cast(prompt(case.family, 2, 3, seed, w), torch.float64) for seed in (4, 5)] for w in (False, True))
    seen = []
    see = LogitsEdit(lambda logits, step: seen.append(step.branches["wide"].float()) or logits)
    branch = Branch("wide", batch(case.family, wide))
    out = case.generate([Declares([branch, see])], batch(case.family, narrow), return_logits=True)
    for row in range(2):
        assert difference(out.logits[row, 0], forward(case.model, narrow[row]).logits[0, -1].float()) <= 1e-5
        assert difference(seen[0][row], forward(case.model, wide[row]).logits[0, -1].float()) <= 1e-5
