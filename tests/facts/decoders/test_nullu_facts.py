"""Nullu's numbers, by hand: bases, projections, what is fitted, saved, and refused."""

from dataclasses import replace

import pytest
import torch

import veridical
from veridical.datasets.world import scene
from veridical.decoders.fitted import Fitted, OtherModel
from veridical.decoders.nullu import Nullu, bases, directions, project
from veridical.pipelines.inputs.text_states import text_rows, text_states
from veridical.pipelines.model.output_weights import projected
from veridical.testing.tiny import prompt, tiny_llava

T = lambda *rows: torch.tensor(rows, dtype=torch.float32)
W = T([1, 2], [3, 4], [5, 6])


def basis_of(truthful, hallucinated, rank=1):
    return bases(T(*truthful)[:, None], T(*hallucinated)[:, None], rank, [0])[0]


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def test_the_basis_is_the_main_direction_of_the_differences():
    found = basis_of([[1, 0, 0], [1, 0, 0]], [[1, 2, 0], [1, -4, 0]])
    close(found.abs(), [[0], [1], [0]])
    close(project(W.T, found).T, [[1, 2], [0, 0], [5, 6]])


def test_a_state_and_a_matrix_lose_the_same_direction():
    v = T([3], [4], [0]) / 5
    close(project(T([5, 5, 2])[0], v), [0.8, -0.6, 2])
    close(project(W.T, v).T, [[-0.8, -0.64], [0.6, 0.48], [5, 6]])


def test_differences_are_not_centred():
    close(basis_of([[3, 1], [3, -1]], [[0, 0], [0, 0]]).abs(), [[1], [0]])


def test_the_size_and_the_sign_of_the_differences_do_not_count():
    one, other = torch.randn(6, 5), torch.randn(6, 5)
    square = lambda v: v @ v.T
    first = square(basis_of(one.tolist(), other.tolist(), 2))
    close(square(basis_of(other.tolist(), one.tolist(), 2)), first, 1e-5)
    close(square(basis_of((7 * one).tolist(), (7 * other).tolist(), 2)), first, 1e-5)


def test_the_scatter_of_batches_has_the_same_directions_as_the_differences():
    m = torch.randn(9, 2, 5, generator=torch.Generator().manual_seed(0))
    known = bases(m, torch.zeros_like(m), 3, [0, 1])
    found = directions(torch.einsum("pld,ple->lde", m.double(), m.double()) / 4, 3).float()
    for layer in (0, 1):
        close(found[layer] @ found[layer].T, known[layer] @ known[layer].T, 1e-5)


@pytest.fixture(scope="module")
def tiny():
    return veridical.LVLM(tiny_llava(8, 2))


def drawn(size=64, rank=6, layers=range(8)):
    draw = torch.Generator().manual_seed(1)
    return {layer: torch.linalg.qr(torch.randn(size, rank, generator=draw))[0] for layer in layers}


def test_the_upper_half_is_edited(tiny):
    assert list(Nullu(weights=Fitted({str(k): v for k, v in drawn().items()})).bases(tiny)) == [4, 5, 6, 7]
    assert list(Nullu.from_bases(drawn()).bases(tiny)) == [4, 5, 6, 7]
    assert list(Nullu.from_bases(drawn(), layers=(0, 5)).bases(tiny)) == [0, 5]


def test_bases_of_some_layers_are_edited_in_these(tiny):
    assert list(Nullu.from_bases(drawn(layers=(1, 3, 7))).bases(tiny)) == [1, 3, 7]


def test_one_tensor_of_each_layer_changes_and_baking_twice_is_baking_once(tiny):
    decoder = Nullu.from_bases(drawn(layers=(2, 5)), rank=3)
    names = [f"model.language_model.layers.{layer}.mlp.down_proj.weight" for layer in (2, 5)]
    new = decoder.baked(tiny)
    assert list(new) == names
    for name, layer in zip(names, (2, 5), strict=True):
        v = drawn(layers=(2, 5))[layer][:, :3]
        close(v.T @ new[name], torch.zeros(3, 128), 1e-5)
        close(new[name] - v @ (v.T @ new[name]), new[name], 1e-6)
    (whole,) = Nullu.from_bases(drawn(layers=(2,)), rank=6).baked(tiny).values()
    assert torch.equal(projected(tiny, 2, drawn(layers=(2,))[2])[names[0]], whole)


def test_half_precision_is_multiplied_in_float32_and_rounded_once():
    lvlm = veridical.LVLM(tiny_llava(8, 2).bfloat16())
    v = drawn(layers=(3,))[3][:, :4]
    weight = lvlm.layers[3].mlp.down_proj.weight.float()
    (new,) = Nullu.from_bases({3: v}).baked(lvlm).values()
    assert torch.equal(new, (weight - v @ (v.T @ weight)).bfloat16())


def test_a_bias_is_left_alone(tiny):
    model = tiny_llava(8, 2, seed=3)
    lvlm = veridical.LVLM(model)
    inputs = prompt(model, 3, 5, 1)
    options = {"return_logits": True, "max_new_tokens": 2, "do_sample": False}
    mlp = lvlm.layers[5].mlp
    mlp.down_proj.bias = torch.nn.Parameter(torch.linspace(-1, 1, 64), requires_grad=False)
    decoder = Nullu.from_bases(drawn(layers=(5,)))
    hooked = veridical.generate(lvlm, inputs, [decoder], **options).logits
    mlp.down_proj.weight.data.copy_(next(iter(decoder.baked(lvlm).values())))
    assert float((veridical.generate(lvlm, inputs, [], **options).logits - hooked).abs().max()) < 1e-5


def test_rank_zero_or_no_layers_is_plain_decoding(tiny):
    assert Nullu(rank=0).is_neutral
    assert not list(Nullu.from_bases(drawn(), layers=()).edits(tiny, {}))


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (Nullu(), "nullu needs directions that were fitted on the model, and none are shipped for .*`veridical fit"),
        (Nullu.from_bases(drawn(), rank=7), r"needs a basis of \(64, 7 or more\) in layer 4; found one of \(64, 6\)"),
        (Nullu.from_bases(drawn(32)), r"needs a basis of \(64, 4 or more\) in layer 4; found one of \(32, 6\)"),
        (Nullu.from_bases(drawn(layers=(1,)), layers=(2,)), "in layer 2; found none"),
        (Nullu.from_bases(drawn(), layers=(8,)), r"Nullu asks for layers \[8\]"),
    ],
)
def test_what_does_not_fit_the_model_is_one_sentence(tiny, decoder, message):
    with pytest.raises(ValueError, match=message):
        decoder.bases(tiny)


# ---------------------------------------------------------------------- fitting on the embedded model


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded")


IMAGES = [scene("train", index).image for index in range(3)]
TRUE = ["A dog.", "A cat in the snow beside a car.", "Two cups."]
FALSE = ["A dog and a horse.", "A cat.", "Two cups and a spoon in a kitchen."]


@pytest.fixture(scope="module")
def found(lvlm):
    return replace(Nullu.fit(lvlm, IMAGES, TRUE, FALSE, batch_size=2), rank=2)


def test_the_fit_is_that_of_means_over_prompt_image_and_text_one_by_one(lvlm, found):
    """A plain pass of transformers per caption; a batch pads, and its padding does not count."""
    means = []
    for texts in (TRUE, FALSE):
        pairs = zip(IMAGES, texts, strict=True)
        rows = [text_rows(lvlm, [image], "Please describe this image in detail.", [text]) for image, text in pairs]
        states = [lvlm.model.model(**row, output_hidden_states=True, use_cache=False) for row in rows]
        assert [int(row["input_ids"][0, -1]) for row in rows] == [lvlm.end_tokens[0]] * 3
        with torch.no_grad():
            means.append(torch.stack([torch.stack([h[0].mean(0) for h in one.hidden_states[1:-1]]) for one in states]))
    expected = bases(means[0].detach(), means[1].detach(), 3, range(len(lvlm.layers) - 1))
    for layer, basis in expected.items():
        mine = found.weights.tensors[str(layer)][:, :3]
        close(mine @ mine.T, basis @ basis.T, 1e-3)


def test_the_last_layers_state_is_raw_or_as_released_behind_the_final_norm(lvlm):
    one, other = (
        torch.cat([*text_states(lvlm, IMAGES[:1], "What is this?", TRUE[:1], over="last", final_norm=norm)])
        for norm in (False, True)
    )
    close(other[:, :-1], one[:, :-1])
    close(other[:, -1], lvlm.decoder.norm(one[:, -1]), 1e-5)


def test_what_is_saved_is_read_back_and_belongs_to_its_model(found, lvlm, tiny, tmp_path):
    folder = found.save_pretrained(tmp_path / "nullu", data={"pairs_sha256": "x"})
    again = Nullu.from_pretrained(folder, rank=2)
    assert again == Nullu(rank=2, weights=str(folder))
    with pytest.raises(ValueError, match=r"needs a basis of \(192, 4 or more\) in layer 4; found one of \(192, 3\)"):
        Nullu.from_pretrained(folder).bases(lvlm)  # there are no more directions than pairs
    for layer, basis in found.bases(lvlm).items():
        assert torch.equal(again.bases(lvlm)[layer], basis)
    with pytest.raises(OtherModel, match="made for 'embedded'"):
        again.bases(tiny)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "directions.safetensors"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{}"), "is not the configuration of fitted directions"),
        (lambda folder: (folder / "directions.safetensors").write_bytes(b"x" * 64), "is no safetensors file"),
        (lambda folder: (folder / "config.json").unlink(), "no fitted directions in .*: looked for config.json"),
        (
            lambda folder: (folder / "config.json").write_text(
                (folder / "config.json").read_text().replace('"nullu"', '"vti"')
            ),
            "holds directions of 'vti', not of 'nullu'",
        ),
    ],
)
def test_a_damaged_folder_is_one_sentence(found, tmp_path, damage, message):
    folder = found.save_pretrained(tmp_path / "nullu")
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Nullu.from_pretrained(folder)


def test_numbers_that_are_none_are_refused(found, tmp_path):
    broken = Fitted({"4": torch.full((192, 4), torch.nan)}, found.weights.about)
    folder = Nullu(weights=broken).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="4 has numbers that are NaN or infinite"):
        Nullu.from_pretrained(folder)


def test_a_pair_for_each_image_is_needed(lvlm):
    with pytest.raises(ValueError, match="2 texts for 3 images"):
        Nullu.fit(lvlm, IMAGES, TRUE, FALSE[:2])
    with pytest.raises(ValueError, match="there are none"):
        Nullu.fit(lvlm, [], [], [])


def test_directions_are_equal_by_their_numbers():
    one, other = Nullu.from_bases(drawn()), Nullu.from_bases(drawn())
    assert one == other
    assert hash(one) == hash(other)
    assert one != Nullu.from_bases(drawn(rank=5))
    with pytest.raises(ValueError, match="weights=3 is no folder or Hub id"):
        Nullu(weights=3)
