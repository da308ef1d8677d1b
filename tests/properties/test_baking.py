"""Methods as weights: what is baked does what the hooks do, loads in plain transformers, and all else is refused."""

import json
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForImageTextToText

import veridical
from veridical.decoders.nullu import Nullu
from veridical.decoders.spin import SPIN
from veridical.decoders.vhr import VHR
from veridical.pipelines.engine.declarations import ResidualEdit
from veridical.pipelines.method import Decoder
from veridical.pipelines.model.baking import changed
from veridical.pipelines.model.output_weights import CannotBake, added, head_output, mlp_outputs
from veridical.testing import assert_unchanged, snapshot
from veridical.testing.tiny import batch, prompt, tiny_llava

DRAW = torch.Generator().manual_seed(0)
BASES = {layer: torch.linalg.qr(torch.randn(64, 4, generator=DRAW))[0] for layer in range(8)}
FIXED = ((2, 3), (5, 1), (5, 7))
OPTIONS = {"return_logits": True, "max_new_tokens": 4, "do_sample": False}


def built(kv_heads):
    model = tiny_llava(8, kv_heads)
    lvlm, inputs = veridical.LVLM(model, name="tiny"), batch([prompt(model, 3, 5, 1), prompt(model, 6, 7, 2)])
    veridical.generate(lvlm, inputs, max_new_tokens=1)  # transformers adds hooks of its own to the tower once
    return lvlm, inputs


@pytest.fixture(scope="module")
def gqa():
    return built(2)


CHAINS = {
    "nullu": ([Nullu.from_bases(BASES, layers=(4, 5, 6, 7))], 4),
    "vhr": ([VHR(heads=FIXED)], 2),
    "spin": ([SPIN(heads=FIXED, queries="all")], 2),
    "several": ([VHR(heads=FIXED), Nullu.from_bases(BASES), SPIN(heads=((1, 0), (2, 2)), queries="all")], 7),
}


@pytest.mark.parametrize(("kv_heads", "name"), [(8, "several"), *((2, name) for name in CHAINS)])
def test_the_checkpoint_decodes_plainly_what_the_hooks_decode(gqa, tmp_path, kv_heads, name):
    """The largest difference of logits is 1e-5 of 1 + |logit|, prompt included; transformers alone reads it."""
    lvlm, inputs = gqa if kv_heads == 2 else built(kv_heads)
    chain, count = CHAINS[name]
    before = snapshot(lvlm)
    found = veridical.bake(lvlm, chain, tmp_path / "baked", inputs)
    assert_unchanged(before, snapshot(lvlm))
    assert len(found.changed) == count
    assert found.error <= 1e-5
    assert found.flips == 0
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "baked").eval()
    hooked = veridical.generate(lvlm, inputs, chain, **OPTIONS)
    out = plain.generate(
        **inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
    )  # fmt: skip
    logits = torch.stack(out.logits, 1)
    assert torch.equal(out.sequences[:, inputs["input_ids"].shape[1] :], hooked.ids)
    assert float(((logits - hooked.logits).abs() / (1 + logits.abs())).max()) <= 1e-5
    moved = veridical.generate(lvlm, inputs, [], **OPTIONS).logits
    assert float((moved - hooked.logits)[:, 0].abs().max()) > 1e-2


def test_all_other_tensors_are_the_sources_to_the_bit_and_the_folder_says_what_was_done(gqa, tmp_path):
    lvlm, inputs = gqa
    decoder = Nullu.from_bases(BASES, layers=(6,))
    found = veridical.bake(lvlm, [decoder], tmp_path, inputs)
    state = AutoModelForImageTextToText.from_pretrained(tmp_path).state_dict()
    source = lvlm.model.state_dict()
    differ = [name for name in source if not torch.equal(source[name], state[name])]
    assert differ == list(found.changed) == ["model.language_model.layers.6.mlp.down_proj.weight"]
    record = json.loads((tmp_path / "veridical.json").read_text())
    assert record["source"] == "tiny"
    assert record["decoders"] == [repr(decoder)]
    assert record["changed"] == differ
    card = (tmp_path / "README.md").read_text()
    assert "What cannot be baked" in card
    assert differ[0] in card
    assert f"{found.error:.1e}" in card
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


def test_in_16_bit_one_rounding_moves_no_likeliest_token(tmp_path):
    model = tiny_llava(8, 2).bfloat16()
    lvlm = veridical.LVLM(model)
    inputs = prompt(model, 3, 5, 1)
    found = veridical.bake(lvlm, [VHR(heads=FIXED)], tmp_path, inputs)  # a factor of 2 is exact in any type
    assert found.kl <= 1e-3
    assert found.flips == 0
    assert AutoModelForImageTextToText.from_pretrained(tmp_path).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore::veridical.pipelines.compatibility.DoubtfulPair")
def test_two_projections_are_applied_in_order(gqa):
    lvlm, inputs = gqa
    other = {5: torch.linalg.qr(torch.randn(64, 4, generator=torch.Generator().manual_seed(9)))[0]}
    chain = [Nullu.from_bases(BASES, layers=(5,)), Nullu.from_bases(other)]
    hooked = veridical.generate(lvlm, inputs, chain, **OPTIONS).logits
    with changed(lvlm, chain):
        baked = veridical.generate(lvlm, inputs, [], **OPTIONS).logits
    assert float((baked - hooked).abs().max()) < 1e-4


# ---------------------------------------------------------------------- a fixed vector


@dataclass(frozen=True)
class Shift(Decoder):
    """Add a fixed vector to what a layer's MLP writes: a method of another package."""

    layer: int = 3

    def edits(self, lvlm, inputs):
        yield ResidualEdit([self.layer], lambda x, call: x + torch.linspace(-1, 1, 64), at="mlp")

    def baked(self, lvlm):
        return added(lvlm, self.layer, torch.linspace(-1, 1, 64))


def test_a_fixed_vector_is_baked_where_the_model_has_a_bias_to_carry_it_and_refused_elsewhere():
    model = tiny_llava(8, 2)
    lvlm, inputs = veridical.LVLM(model, name="tiny"), prompt(model, 3, 5, 1)
    with pytest.raises(CannotBake, match=r"layers\.3\.mlp\.down_proj\.weight has no bias that could carry a fixed"):
        Shift().baked(lvlm)
    model.model.language_model.layers[3].mlp.down_proj.bias = torch.nn.Parameter(torch.ones(64), requires_grad=False)
    hooked = veridical.generate(lvlm, inputs, [Shift()], **OPTIONS).logits
    with changed(lvlm, [Shift()]) as names:
        assert names == {"model.language_model.layers.3.mlp.down_proj.bias"}
        baked = veridical.generate(lvlm, inputs, [], **OPTIONS).logits
    assert float((baked - hooked).abs().max()) < 1e-5


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (["vcd"], "vcd cannot be baked: what it does depends on the input"),
        ([Nullu.from_bases(BASES), "vsv"], "vsv cannot be baked"),
        (["vhr"], r"vhr chooses its heads for each image; only heads=\(\(layer, head\), …\) can be baked"),
        (["spin:keep=0.5"], "spin chooses its heads for each token"),
        ([SPIN(heads=FIXED)], 'spin with queries="last" edits some rows alone; weights need queries="all"'),
        ([], "no decoder is to be baked"),
        (["nullu:rank=0"], "no decoder is to be baked, or each is at its neutral strength"),
        ([VHR(heads=((9, 0),))], r"VHR's heads asks for layers \[9\]"),
        ([VHR(heads=((1, 8),))], r"VHR asks for heads \[8\]; this model's query heads are 0 to 7"),
    ],
)
def test_what_no_weights_can_carry_is_refused_with_the_reason(gqa, tmp_path, chain, message):
    before = snapshot(gqa[0])
    with pytest.raises(ValueError, match=message):
        veridical.bake(gqa[0], chain, tmp_path / "baked", gqa[1])
    assert_unchanged(before, snapshot(gqa[0]))
    assert not (tmp_path / "baked").exists()


def test_a_folder_that_holds_something_is_left_alone(gqa, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something already"):
        veridical.bake(gqa[0], [VHR(heads=FIXED)], tmp_path, gqa[1])
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_weight_that_another_part_shares_is_refused(tmp_path):
    lvlm, inputs = built(2)
    lvlm.layers[3].mlp.down_proj.weight = lvlm.layers[5].mlp.down_proj.weight
    before = snapshot(lvlm)
    with pytest.raises(CannotBake, match=r"is shared with .*down_proj\.weight, which would change too"):
        veridical.bake(lvlm, [Nullu.from_bases(BASES)], tmp_path / "baked", inputs)
    assert_unchanged(before, snapshot(lvlm))


def test_a_checkpoint_that_does_something_else_is_not_reported_as_done(gqa, tmp_path):
    """A method whose hooks and weights disagree is caught by the logits."""

    class Wrong(Nullu):
        def baked(self, lvlm):
            return {name: 1.01 * value for name, value in super().baked(lvlm).items()}

    found = Nullu.from_bases(BASES)
    with pytest.raises(CannotBake, match=r"is not what the hooks do: logits differ by .* Do not use it"):
        veridical.bake(gqa[0], [Wrong(weights=found.weights)], tmp_path / "baked", gqa[1])


# ---------------------------------------------------------------------- finding the matrices


def test_matrices_are_found_by_name_and_their_axis_by_shape(gqa):
    lvlm, _ = gqa
    (mlp,), heads = mlp_outputs(lvlm, 2), head_output(lvlm, 2)
    assert (mlp.name, mlp.axis, mlp.bias) == ("model.language_model.layers.2.mlp.down_proj.weight", 0, None)
    assert (heads.name, heads.axis) == ("model.language_model.layers.2.self_attn.o_proj.weight", 0)


class Experts(torch.nn.Module):
    """Two experts in one tensor, and one that is always on."""

    def __init__(self, transposed):
        super().__init__()
        shape = (2, 96, 64) if transposed else (2, 64, 96)
        self.down_proj = torch.nn.Parameter(torch.randn(*shape, generator=DRAW))
        self.shared_expert = torch.nn.ModuleDict({"down_proj": torch.nn.Linear(96, 64, bias=False)})


@pytest.mark.parametrize("transposed", [False, True])
def test_every_experts_matrix_is_projected(transposed):
    model = tiny_llava(8, 2)
    lvlm = veridical.LVLM(model)
    lvlm.layers[2].mlp = Experts(transposed)
    new = Nullu.from_bases(BASES, layers=(2,)).baked(lvlm)
    assert len(new) == 2
    for value in new.values():
        out = value.mT if value.dim() == 3 and transposed else value
        assert float((BASES[2].T @ out).abs().max()) < 1e-5


def test_a_model_without_such_a_matrix_is_refused(gqa):
    model = tiny_llava(8, 2)
    lvlm = veridical.LVLM(model)
    lvlm.layers[2].mlp = torch.nn.Sequential(torch.nn.Linear(64, 64))
    with pytest.raises(CannotBake, match=r"its MLP has none of down_proj, .*found 0\.weight"):
        mlp_outputs(lvlm, 2)
