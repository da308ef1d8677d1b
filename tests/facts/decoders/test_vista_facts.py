"""VISTA's two halves, and the direction of each, in numbers from the specification.

1e-6 unless said: the specification gives six decimals, float32 keeps seven digits.
"""

import math

import pytest
import torch

from veridical.decoders.early_logits import window_blocks
from veridical.decoders.steering import steer, steer_official
from veridical.decoders.vista import SLA, VISTA, VSV
from veridical.pipelines.engine.declarations import Step


def paper(h, v, strength):
    return steer(torch.tensor([[h]]), torch.tensor([v]), strength)[0, 0]


def official(m, v, strength):
    return steer_official(torch.tensor([[m]]), torch.tensor([v]), strength)[0, 0]


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=tolerance, atol=tolerance)


def random_states(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, 16, generator=generator), torch.randn(3, 16, generator=generator)


# ---------------------------------------------------------------------- steering


@pytest.mark.parametrize("turn", [steer, steer_official])
def test_vsv_steers_toward_what_the_image_adds(turn):
    hidden, vector = random_states(0)
    cosine = lambda x: torch.nn.functional.cosine_similarity(x, vector[:, None], dim=-1)
    assert (cosine(turn(hidden, vector, 0.2)) > cosine(hidden)).all()


@pytest.mark.parametrize("turn", [steer, steer_official])
@pytest.mark.parametrize("strength", [0.01, 0.17, 3.0])
def test_steering_keeps_the_length(turn, strength):
    """1e-5 of it."""
    hidden, vector = random_states(1)
    for scale in (1e-3, 1.0, 1e3):
        torch.testing.assert_close(
            turn(hidden, scale * vector, strength).norm(dim=-1), hidden.norm(dim=-1), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize(("v", "expected"), [([0.0, 2.0], [2.572479, 4.287465]), ([0.0, 20.0], [1.047645, 4.889012])])
def test_the_papers_steering_depends_on_the_vectors_length(v, expected):
    close(paper([3.0, 4.0], v, 0.5), expected)


@pytest.mark.parametrize(
    ("v", "strength", "expected"),
    [
        ([0.0, 2.0], 0.5, [2.095291, 4.539797]),
        ([0.0, 20.0], 0.5, [2.095291, 4.539797]),  # whatever its length
        ([-4.0, 3.0], 0.17, [2.287186, 4.446210]),
        ([0.0, -2.0], 0.5, [4.931970, -0.821995]),  # away: gain 1.8
        ([-3.0, -4.0], 0.2, [3.0, 4.0]),  # straight away: gain 2, and 1 − 0.4 is still ahead
    ],
)
def test_the_released_codes_steering(v, strength, expected):
    close(official([3.0, 4.0], v, strength), expected)


def test_the_released_code_keeps_the_mlps_length_and_not_the_streams():
    m, h = torch.tensor([0.0, 1.0]), torch.tensor([4.0, 0.0])
    steered = official(m.tolist(), [1.0, 0.0], 0.5)
    close(h + steered, [4.44721, 0.89443], 5e-6)
    assert float((h + steered).norm()) == pytest.approx(4.53627, abs=5e-6)
    assert float((h + m).norm()) == pytest.approx(4.12311, abs=5e-6)


def test_a_vector_straight_away_turns_the_mlps_output_round_once_it_is_strong_enough():
    """s = 2, so that λ = 0.5 is 0/0, which leaves it, and more flips it."""
    close(official([3.0, 4.0], [-3.0, -4.0], 0.5), [3.0, 4.0])
    close(official([3.0, 4.0], [-3.0, -4.0], 0.6), [-3.0, -4.0])


def test_at_right_angles_the_released_code_turns_by_at_most_the_arcus_tangent():
    turned = official([1.0, 0.0], [0.0, 7.0], 0.17)
    assert math.degrees(math.atan2(float(turned[1]), float(turned[0]))) == pytest.approx(9.6, abs=0.06)


@pytest.mark.parametrize("turn", [steer, steer_official])
def test_nothing_to_turn_and_nothing_to_turn_to_leave_the_state(turn):
    hidden, vector = random_states(2)
    assert torch.equal(turn(hidden, torch.zeros_like(vector), 0.17), hidden) or turn is steer
    torch.testing.assert_close(turn(hidden, torch.zeros_like(vector), 0.17), hidden, rtol=1e-6, atol=1e-6)
    assert torch.equal(turn(torch.zeros_like(hidden), vector, 0.17), torch.zeros_like(hidden))
    away = steer(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[-3.0, -4.0]]), 1.0)
    assert away.tolist() == [[[3.0, 4.0]]], "h + λv = 0 has no direction"


@pytest.mark.parametrize("turn", [steer, steer_official])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_steering_keeps_the_type(turn, dtype):
    """The released code forces float16."""
    hidden, vector = random_states(3)
    assert turn(hidden.to(dtype), vector, 0.17).dtype == dtype


def test_every_sample_is_steered_by_its_own_vector_at_every_position():
    hidden, vector = random_states(4)
    together = steer(hidden, vector, 0.5)
    for sample in range(3):
        for position in range(5):
            alone = paper(hidden[sample, position].tolist(), vector[sample].tolist(), 0.5)
            torch.testing.assert_close(together[sample, position], alone, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------- the vectors


@pytest.fixture(scope="module")
def tiny():
    import veridical

    from ...parity.tiny import batch, prompt, tiny_llava

    model = tiny_llava(8, 2)
    return veridical.LVLM(model), batch([prompt(model, 3, 5, 1), prompt(model, 1, 7, 2)])


def states(lvlm, inputs):
    """Block outputs at the last position, (layer, batch, hidden), by hooks of our own."""
    kept = []
    look = lambda module, given, output: kept.append((output if isinstance(output, torch.Tensor) else output[0])[:, -1])
    handles = [layer.register_forward_hook(look) for layer in lvlm.layers]
    try:
        lvlm.model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept)


def test_the_vectors_point_from_the_state_without_the_image_to_the_one_with_it(tiny):
    """1e-5: states of size 10, batched with the other prompt on one side and not on the other."""
    lvlm, inputs = tiny
    found = VSV().vectors(lvlm, inputs)
    assert found.shape == (8, 2, 64)
    expected = states(lvlm, inputs) - states(lvlm, lvlm.image_free(inputs))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_released_codes_vectors_have_one_more_in_one_place(tiny):
    """Its PCA of one sample returns the difference plus the first basis vector."""
    lvlm, inputs = tiny
    extra = VSV(mode="official").vectors(lvlm, inputs) - VSV().vectors(lvlm, inputs)
    torch.testing.assert_close(extra[0, :, 0], torch.ones(2), rtol=0, atol=1e-6)
    extra[0, :, 0] = 0
    assert torch.equal(extra, torch.zeros_like(extra))


def test_the_example_of_the_artefact():
    """[[0.3, 0.4, 0], [1, 2, 2]] becomes [[1.3, 0.4, 0], [1, 2, 2]]: the first unit vector is (0.9558, 0.2941, 0)."""
    with_artefact = torch.tensor([1.3, 0.4, 0.0])
    unit = with_artefact / with_artefact.norm()
    torch.testing.assert_close(unit, torch.tensor([0.9558, 0.2941, 0.0]), rtol=0, atol=5e-5)
    turned = official([0.0, 0.0, 1.0], with_artefact.tolist(), 0.17)
    assert float(turned[0] / turned[1]) == pytest.approx(1.3 / 0.4, abs=1e-5)


# ---------------------------------------------------------------------- self-logits augmentation


class Heads:
    """A model's head on two dimensions and three tokens, with a norm of unit gain in front of it on request."""

    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    def __init__(self, soft_cap=None):
        self.soft_cap, self.rows = soft_cap, 0

    def head(self, hidden):
        self.rows += hidden[..., 0].numel()
        logits = hidden @ self.weight.T
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)

    def final_norm(self, hidden):
        return hidden / hidden.square().mean(-1, keepdim=True).sqrt()


EARLY = {4: torch.tensor([[1.0, 0.0]]), 5: torch.tensor([[0.0, 2.0]])}
FINAL = torch.tensor([[2.0, 1.0, 3.0]])


def augmented(**options):
    return SLA(**options).mix(Heads(), FINAL, Step(readings={"sla": EARLY}))[0]


def test_sla_mixes_the_early_logits_in():
    """Toward (0.5, 1, 1.5), by 0.3 of the way."""
    close(augmented(gamma=0.3), [1.55, 1.0, 2.55])


def test_a_larger_share_brings_the_logits_nearer_to_the_early_ones():
    early = torch.tensor([0.5, 1.0, 1.5])
    distances = [float((augmented(gamma=gamma) - early).norm()) for gamma in (0.0, 0.3, 0.6, 1.0)]
    assert distances == sorted(distances, reverse=True)


def test_a_share_of_one_is_the_early_logits_and_of_zero_the_final_ones():
    close(augmented(gamma=1.0), [0.5, 1.0, 1.5])
    close(augmented(gamma=0.0), [2.0, 1.0, 3.0])


def test_a_token_that_another_method_has_cut_stays_cut_whatever_the_share():
    """(1 − γ)·l is 0·−∞ at γ = 1."""
    cut = torch.tensor([[2.0, -math.inf, 3.0]])
    for gamma in (0.3, 1.0):
        mixed = SLA(gamma=gamma).mix(Heads(), cut, Step(readings={"sla": EARLY}))[0]
        assert mixed.isneginf().tolist() == [False, True, False]
        assert torch.equal(mixed[[0, 2]], augmented(gamma=gamma)[[0, 2]])


def test_with_the_final_norm_the_early_logits_are_others():
    """Each state has unit root mean square first: (√2, 0) and (0, √2)."""
    close(augmented(gamma=1.0, final_norm=True), [0.7071068, 0.7071068, 1.4142136])


def test_averaging_states_or_their_logits_is_the_same_without_a_norm():
    close(Heads().head((EARLY[4] + EARLY[5]) / 2)[0], [0.5, 1.0, 1.5])


def test_capped_logits_are_averaged_after_the_cap():
    """The mean of 1·tanh(1) and 1·tanh(0), of tanh(0) and tanh(2), of tanh(1) and tanh(2); one row each elsewhere."""
    capped, linear = Heads(soft_cap=1.0), Heads()
    for head in (capped, linear):
        mixed = SLA(gamma=1.0).mix(head, FINAL, Step(readings={"sla": EARLY}))[0]
        if head is capped:
            close(mixed, [0.3807971, 0.4820138, 0.8628109])
    assert (capped.rows, linear.rows) == (2, 1)


@pytest.mark.parametrize(
    ("window", "count", "expected"),
    [
        (5, 32, range(26, 31)),
        ((25, 30), 32, range(25, 31)),
        ((-7, -2), 32, range(25, 31)),
        (1, 32, range(30, 31)),
        (31, 32, range(0, 31)),
        (5, 8, range(2, 7)),
        ((-7, -2), 8, range(1, 7)),
        ((0, 0), 2, range(0, 1)),
    ],
    ids=str,
)
def test_the_window_ends_below_the_last_block(window, count, expected):
    assert window_blocks(window, count) == expected


@pytest.mark.parametrize("window", [0, -1, 8, 32, (3, 7), (5, 4), (-9, -2), (-2, -1), (0, -1)], ids=str)
def test_a_window_that_is_empty_too_long_or_reaches_the_last_block_is_refused(window):
    with pytest.raises(ValueError, match="window="):
        window_blocks(window, 8)


def test_a_model_of_one_layer_has_no_window():
    with pytest.raises(ValueError, match="window=1 blocks below the last; this model has 1 layers: none lies below"):
        window_blocks(1, 1)


# ---------------------------------------------------------------------- settings


def test_the_defaults_are_the_papers():
    assert VSV() == VSV(strength=0.17, mode="paper")
    assert SLA() == SLA(gamma=0.3, window=5, final_norm=False)
    assert VISTA() == VISTA(strength=0.17, gamma=0.3, window=5, mode="paper")


def test_official_is_the_released_code():
    assert VSV.official() == VSV(mode="official")
    assert window_blocks(SLA.official().window, 32) == range(25, 31)
    assert VISTA.official() == VISTA(window=(-7, -2), mode="official")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VSV(strength=-0.1), r"strength=-0\.1 is below 0"),
        (lambda: VSV(mode="code"), "mode='code' is none of 'paper', 'official'"),
        (lambda: SLA(gamma=1.7), r"gamma=1\.7 is outside 0 to 1 \(share of the early logits\)\."),
        (lambda: VISTA(gamma=-0.1), "is outside 0 to 1"),
        (lambda: VISTA(strength=-1), "strength=-1 is below 0"),
        (lambda: VISTA(mode="none"), "is none of"),
    ],
)
def test_settings_outside_their_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_steering_can_be_kept_to_some_layers(tiny):
    lvlm, inputs = tiny
    edits = list(VSV(layers=(2, 5)).edits(lvlm, inputs))
    assert [list(edit.layers) for edit in edits] == [[2, 5]]
    assert not list(VSV(layers=()).edits(lvlm, inputs))
    with pytest.raises(ValueError, match=r"VSV asks for layers \[8\], but this model's layers are 0 to 7"):
        list(VSV(layers=(8,)).edits(lvlm, inputs))


def test_vista_hands_its_settings_to_its_halves():
    steering, mixing = VISTA(0.1, 0.2, 3, "official", layers=[1, 2], final_norm=True).parts()
    assert steering == VSV(0.1, "official", layers=(1, 2))
    assert mixing == SLA(0.2, 3, final_norm=True)
