"""SID's contrast, choice and mask, in numbers from its specification (six decimals)."""

import math
from types import SimpleNamespace

import pytest
import torch

from veridical.decoders.image_tokens import kept_count, least_attended
from veridical.decoders.sid import SID, hide
from veridical.pipelines.engine.call import Sequences
from veridical.pipelines.engine.declarations import AttentionEdit, Branch, LogitsEdit, Step

FIGURE = torch.tensor([[9.0, 6.0, 9.5, 8.9]]), torch.tensor([[8.0, 7.0, 6.0, 7.0]])
GREEDY = torch.tensor([[3.0, 2.5, 0.0, -1.0]]), torch.tensor([[3.5, 2.0, 1.0, -7.0]])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def mix(pair, **options):
    return SID(**options).mix(pair[0], Step(branches={"sid": pair[1]}))


def test_the_contrast_of_the_papers_figure():
    close(mix(FIGURE, beta=0), [9.5, 5.5, 11.25, 9.85])
    close(mix(FIGURE, beta=0).softmax(1), [0.122071, 0.002236, 0.702467, 0.173226])
    close(mix(FIGURE), [9.5, -math.inf, 11.25, 9.85])
    close(mix(FIGURE).softmax(1), [0.122344, 0.0, 0.704041, 0.173614])
    close(mix(FIGURE, alpha=1, beta=0), [10, 5, 13, 10.8])
    close(mix(FIGURE, alpha=1, beta=0).softmax(1), [0.042886, 0.000289, 0.861382, 0.095444])


def test_the_cut_decides_greedy_decoding_and_the_released_code_leaves_it_out():
    close(mix(GREEDY, alpha=1), [2.5, 3, -math.inf, -math.inf])
    close(mix(GREEDY, alpha=1, beta=0), [2.5, 3, -1, 5])
    close(mix(GREEDY, beta=0)[0, :2], [2.75, 2.75])
    assert int(SID.official(alpha=1).mix(GREEDY[0], Step(branches={"sid": GREEDY[1]})).argmax()) == 3


@pytest.mark.parametrize("options", [{"alpha": 0}, {"beta": 1, "alpha": 3.0}], ids=str)
def test_no_contrast_or_the_tightest_cut_keeps_the_choice(options):
    assert int(mix(GREEDY, **options).argmax()) == 0


def test_a_share_of_the_tokens_is_rounded_to_the_nearest_and_is_at_least_one():
    tokens = (4, 5, 15, 16, 25, 32, 64, 144, 256, 576, 2880)
    assert [kept_count(0.1, n) for n in tokens] == [1, 1, 2, 2, 3, 3, 6, 14, 26, 58, 288]


def test_a_whole_number_is_a_count_and_one_is_not_all():
    assert (kept_count(100, 576), kept_count(100, 64), kept_count(1, 64), kept_count(1.0, 64)) == (100, 64, 1, 64)


def chosen(attention, keep):
    row = torch.tensor(attention).view(1, 1, -1)
    found = least_attended(row, torch.ones(1, row.shape[2], dtype=torch.bool), keep)
    return found.flatten().nonzero().flatten().tolist()


def test_the_least_attended_tokens_stay_and_of_equals_the_earlier():
    assert chosen([0.05, 0.30, 0.02, 0.20, 0.10, 0.01], 3) == [0, 2, 5]
    assert chosen([0.2, 0.1, 0.1, 0.1], 2) == [1, 2]


def test_text_is_never_chosen_and_each_sample_counts_its_own_tokens():
    attention = torch.tensor([[[0.0, 0.3, 0.2, 0.1, 0.4]], [[0.0, 0.3, 0.2, 0.1, 0.4]]])
    image = torch.tensor([[False, True, True, True, True], [False, False, True, True, False]])
    assert least_attended(attention, image, 0.5).tolist() == [
        [[False, False, True, True, False]], [[False, False, False, True, False]],
    ]  # fmt: skip


def visible(probabilities, image, seen, keep=1):
    """What `choose` leaves for the layers above. probabilities: (head, query, key)"""
    where = Sequences(torch.tensor([image]), torch.zeros(1, len(image), dtype=torch.bool), torch.zeros(1).long(), seen)
    keys = torch.tensor([[*image, *[False] * (seen - len(image))]])
    call = SimpleNamespace(sequences=where, image=keys)
    found: dict = {}
    given = torch.tensor(probabilities)[None]
    assert SID(keep=keep).choose(found, given, call) is given
    return found, call


def test_attention_is_the_mean_over_heads_and_not_the_largest():
    heads = [[[0.0, 0.20, 0.12]], [[0.20, 0.10, 0.12]]]
    found, _ = visible(heads, [True, True, True], 3)
    assert found["tokens"][0, 0].tolist() == [True, False, False]


def test_rows_of_the_prompt_share_its_last_rows_choice_and_a_generated_token_has_its_own():
    rows = [[[0.2, 0.8, 0, 0], [0.4, 0.6, 0, 0], [0.5, 0.1, 0.4, 0], [0.3, 0.3, 0.1, 0.3]]]
    found, call = visible(rows, [False, True, True], 4)
    assert found["tokens"][0].tolist() == [[False, True, False, False]] * 3 + [[False, False, True, False]]
    edited = SID().edit(found, torch.zeros(1, 2, 4, 4), call)
    hidden = (edited[0] < -1).tolist()
    assert hidden[0] == hidden[1] == [[False, False, True, False]] * 3 + [[False, True, False, False]]


def test_a_row_that_nothing_else_is_left_to_keeps_its_own_key():
    scores = torch.zeros(1, 1, 2, 2).masked_fill(torch.tensor([[False, True], [False, False]]), -math.inf)
    hidden = torch.tensor([[[True, False], [True, False]]])
    found = hide(scores, hidden, torch.eye(2, dtype=torch.bool))[0, 0]
    assert (found > -1).tolist() == [[True, False], [False, True]]


def test_sid_declares_its_branch_the_reading_below_the_mask_and_the_contrast():
    branch, reading, mask, edit = SID().edits(SimpleNamespace(layers=[None] * 6), {"input_ids": 1})
    assert isinstance(branch, Branch)
    assert branch.inputs == {"input_ids": 1}
    assert isinstance(reading, AttentionEdit)
    assert (list(reading.layers), reading.on, reading.branch) == ([2], "probabilities", "sid")
    assert (list(mask.layers), mask.on, mask.branch) == ([3, 4, 5], "scores", "sid")
    assert isinstance(edit, LogitsEdit)


@pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
@pytest.mark.parametrize("options", [{"keep": 1.0}, {"layer": 8}, {"keep": 16}], ids=str)
def test_hiding_nothing_is_plain_decoding(two_steps, options):
    close(two_steps(SID(beta=0, **options)), two_steps(), 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"beta": 2}, "beta=2 is outside 0 to 1"),
        ({"layer": 0}, "layer=0 is below 1"),
        ({"keep": 1.5}, "keep=1.5 is outside 0 to 1"),
        ({"keep": 0}, "keep=0 is below 1"),
        ({"keep": True}, "keep=True is no number"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SID(**options)


def test_the_defaults_and_the_released_codes_values():
    assert SID() == SID(alpha=0.5, beta=0.1, layer=3, keep=0.1)
    assert SID.official() == SID(alpha=0.5, beta=0, layer=2, keep=100)
    assert SID().for_model("Salesforce/instructblip-vicuna-7b") == SID(layer=5)
