"""The reference's formulas against the worked numbers of the specifications."""

import math

import pytest
import torch

from . import reference_methods as methods


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(
        torch.as_tensor(found).double(), torch.as_tensor(expected).double(), rtol=0, atol=tolerance
    )


def test_diffusion_coefficients_are_those_of_the_schedule():
    pairs = {500: (0.863017, 0.505175), 700: (0.592677, 0.805440), 900: (0.364888, 0.931051), 999: (0.285043, 0.958515)}
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for step, (signal, noise) in pairs.items():
        close(methods.diffuse(one, step, zero), [signal])
        close(methods.diffuse(zero, step, one), [noise])


def test_contrast_and_cut_numbers():
    raw, other = torch.tensor([2.0, 1.5, 0.0, -1.0]), torch.tensor([2.5, 0.5, 1.0, -4.0])
    close(methods.contrast_and_cut(raw, other, 2.5, 0.1), [0.75, 4.0, -2.5, -math.inf])
    close(methods.contrast_and_cut(raw, other, 3.0, 0.1), [0.5, 4.5, -3.0, -math.inf])
    close(methods.contrast_and_cut(raw, other, 2.5, 0.0)[3], 6.5)
    figure = methods.contrast_and_cut(torch.tensor([28.01, 27.10]), torch.tensor([21.43, 19.04]), 2.5, 0)
    close(figure, [44.46, 47.25], 1e-4)
    only_best = methods.contrast_and_cut(raw, other, 3.0, 1.0)
    assert only_best.isfinite().tolist() == [True, False, False, False]


IMAGE = torch.tensor([0, 0, 1, 1, 1, 1, 1, 0, 0, 0], dtype=torch.bool)
SINK = torch.tensor([1, 0, 0, 1, 0, 0, 0, 0, 0, 0], dtype=torch.bool)
ROW_A = torch.tensor([0.30, 0.05, 0.04, 0.10, 0.12, 0.06, 0.08, 0.05, 0.10, 0.10], dtype=torch.float64)
ROW_B = torch.tensor([0.30, 0.05, 0.02, 0.30, 0.03, 0.02, 0.03, 0.05, 0.10, 0.10], dtype=torch.float64)
ROW_C = torch.tensor([0.60, 0.15, 0.02, 0.01, 0.02, 0.02, 0.03, 0.05, 0.05, 0.05], dtype=torch.float64)


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (0.6, [0.12, 0.05, 0.072, 0.04, 0.216, 0.108, 0.144, 0.05, 0.10, 0.10]),
        (0.4, [0.18, 0.05, 0.061333, 0.06, 0.184, 0.092, 0.122667, 0.05, 0.10, 0.10]),
        (1.0, [0, 0.05, 0.093333, 0, 0.28, 0.14, 0.186667, 0.05, 0.10, 0.10]),
        (0.0, ROW_A.tolist()),
    ],
)
def test_redistribution_numbers(move, expected):
    row = methods.redistribute(ROW_A, IMAGE, SINK, move=move)
    close(row, expected)
    close(row.sum(), 1, 1e-12)


def test_rows_that_look_at_sinks_or_past_the_image_are_left_alone():
    assert torch.equal(methods.redistribute(ROW_B, IMAGE, SINK), ROW_B)
    assert not torch.equal(methods.redistribute(ROW_B, IMAGE, SINK, min_nonsink=0.2), ROW_B)
    assert torch.equal(methods.redistribute(ROW_C, IMAGE, SINK), ROW_C)


def test_text_sinks_alone_move_their_budget_unless_a_visual_sink_is_required():
    first = torch.zeros(10, dtype=torch.bool)
    first[0] = True
    close(methods.redistribute(ROW_A, IMAGE, first)[[0, 2]], [0.12, 0.04 + 0.18 * 0.04 / 0.40])
    assert torch.equal(methods.redistribute(ROW_A, IMAGE, first, require_visual_sink=True), ROW_A)


def test_a_row_whose_image_mass_is_all_sinks_is_left_alone():
    row = torch.tensor([0.5, 0.5], dtype=torch.float64)
    image = torch.tensor([True, False])
    assert torch.equal(methods.redistribute(row, image, image, min_nonsink=0.0), row)


@pytest.mark.parametrize(
    ("dim", "value", "expected"),
    [(2533, 60, 43.775077), (1415, 19, 18.216334), (7, 500, 0.126964), (1415, -60, 43.775077)],
)
def test_phi_numbers(dim, value, expected):
    """2e-5: the printed numbers leave out the 1e-6 inside the root."""
    x = torch.ones(4096, dtype=torch.float64)
    x[dim] = value
    close(methods.phi(x, (1415, 2533)), expected, 2e-5)


WITH = torch.tensor([[1, 0], [0, 3], [2, 2], [0, 1]], dtype=torch.float64)
WITHOUT = torch.tensor([[1, 1], [0, 0], [2, 2], [6, 9]], dtype=torch.float64)


def test_head_choice_numbers():
    vhd, energy = methods.divergence(WITH, WITHOUT), (WITHOUT**2).sum(-1)
    close(vhd, [1, 3, 0, 10])
    close(energy, [2, 0, 8, 117])
    assert methods.choose_heads(vhd, energy) == [0, 1]
    assert methods.choose_heads(vhd, energy, outlier_filter=False) == [1, 3]
    assert methods.choose_heads(torch.zeros(4), energy) == []
    vhd, energy = torch.tensor([1.0] * 6 + [4.5, 6]), torch.tensor([1.0] * 6 + [9, 9])
    assert methods.choose_heads(vhd, energy) == [], "plain norm: both outliers zeroed, nothing above the median of 1"
    assert methods.choose_heads(vhd**2, energy) == [6], "squared, only head 7 would be"


def test_the_filter_needs_both_conditions():
    a = torch.tensor([[1, 2, 2], [0, 0, 1], [3, 0, 4], [1, 1, 1]], dtype=torch.float64)
    b = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0]], dtype=torch.float64)
    vhd = methods.divergence(a, b)
    close(vhd, [2.828427, 0, 5, 1])
    assert methods.choose_heads(vhd, (b**2).sum(-1)) == [0, 2]
    close(methods.t_vhd(vhd[None], k=2), 7.828427)
    close(methods.t_vhd(torch.stack([vhd, torch.tensor([0.5, 0.1, 0.2, 0.4], dtype=torch.float64)])), 8.728427)


def test_reinforcement_scales_the_chosen_heads_at_every_position():
    heads = torch.tensor([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]])
    assert methods.reinforce({2: [1]}, 2.0)(2, heads).tolist() == [[[1, 2], [6, 8]], [[5, 6], [14, 16]]]
    assert torch.equal(methods.reinforce({2: [1]}, 2.0)(3, heads), heads)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("m", "v", "strength", "expected"),
    [
        ((3, 4), (0, 2), 0.5, (2.095291, 4.539797)),
        ((3, 4), (0, 20), 0.5, (2.095291, 4.539797)),
        ((3, 4), (-4, 3), 0.17, (2.287186, 4.446210)),
        ((3, 4), (0, -2), 0.5, (4.931970, -0.821995)),
        ((3, 4), (-3, -4), 0.2, (3, 4)),
        ((3, 4), (0, 0), 0.2, (3, 4)),
        ((0, 0), (0, 1), 0.2, (0, 0)),
        ((0, 1), (0, -1), 0.5, (0, 1)),
    ],
)
def test_official_steering_numbers(m, v, strength, expected):
    close(methods.steer_official(vector(*m), vector(*v), strength), expected)


def test_paper_steering_numbers():
    close(methods.steer_paper(vector(3, 4), vector(0, 2), 0.5), (2.572479, 4.287465))
    close(methods.steer_paper(vector(3, 4), vector(0, 20), 0.5), (1.047645, 4.889012))


def test_official_steering_keeps_the_dtype_of_its_input():
    m = torch.tensor([3.0, 4.0], dtype=torch.bfloat16)
    steered = methods.steer_official(m, vector(0, 2).float(), 0.5)
    assert steered.dtype == torch.bfloat16
    close(steered, (2.095291, 4.539797), 0.02)


def test_pca_artefact_numbers():
    close(methods.pca_artefact(torch.tensor([[0.3, 0.4, 0], [1, 2, 2]])), [[1.3, 0.4, 0], [1, 2, 2]])


def test_augmentation_numbers():
    head = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    early = [head @ torch.tensor([1.0, 0]), head @ torch.tensor([0.0, 2])]
    close(methods.augment(head @ torch.tensor([2.0, 1]), early, 0.3), (1.55, 1.0, 2.55))
    close(methods.augment(head @ torch.tensor([2.0, 1]), early, 1.0), (0.5, 1, 1.5))


def test_windows():
    assert methods.window_blocks(32, 5) == [26, 27, 28, 29, 30]
    assert methods.window_blocks(32, (25, 30)) == [25, 26, 27, 28, 29, 30]
    with pytest.raises(ValueError, match="reaches outside"):
        methods.window_blocks(32, (25, 31))
    with pytest.raises(ValueError, match="reaches outside"):
        methods.window_blocks(8, 8)


def test_lookback_ratio_numbers():
    close(methods.ratio(torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1, 0.1]), range(4), range(4, 6)), 2 / 3)
