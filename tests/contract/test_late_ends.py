"""Rows whose text has ended leave the passes beside a branch that is read late, and so do its rows that go along."""

import pytest
import torch

from veridical.decoders.gate import Gate
from veridical.pipelines.engine import rows

from .ends import staggered, staying, widths
from .test_costs import counted
from .test_late import Scripted, tiny

__all__ = ["tiny"]

LENGTHS = (4, 24, 12)  # tokens of each text, its end included
ALONG = ([0, 1, 2], [0, 2, 9, 22], [1, 3, 4, 10])  # each row goes along soon, and two leave
LATE = ([1], [14], [9])  # the second row is first read when it is the only one


def gate(tiny, opens, decoder="vcd"):
    lengths = tuple(tiny.inputs["attention_mask"].sum(1).tolist())
    return [Gate(decoder, Scripted(tuple(map(tuple, opens)), lengths), 0.5)]


@pytest.mark.parametrize("opens", [ALONG, LATE], ids=["along", "late"])
@pytest.mark.parametrize("decoder", ["vcd", "icd:prefix_ids=(5,6,7)", "m3id"])
@pytest.mark.parametrize(
    "options", [{}, {"do_sample": True, "seed": [11, 12, 13]}, {"detectors": ["lookback_lens"]}],
    ids=["greedy", "sampling", "deferred"],
)  # fmt: skip
def test_texts_are_those_of_rows_that_stay_and_of_branches_that_run_along(tiny, opens, decoder, options, monkeypatch):
    left = staggered(tiny, gate(tiny, opens, decoder), LENGTHS, **options)
    with staying(monkeypatch):
        stayed = staggered(tiny, gate(tiny, opens, decoder), LENGTHS, **options)
    with monkeypatch.context() as eager:
        eager.setattr(rows, "can_wait", lambda inputs: False)
        along = staggered(tiny, gate(tiny, opens, decoder), LENGTHS, **options)
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    for other in (stayed, along):
        assert torch.equal(left.ids, other.ids)
        torch.testing.assert_close(left.logits[real], other.logits[real], rtol=0, atol=5e-5)  # as in test_late.py
        assert torch.equal(left.acted["gate"].acted, other.acted["gate"].acted)
        for name, risk in other.risk.items():
            torch.testing.assert_close(left.risk[name], risk, rtol=1e-4, atol=5e-5, equal_nan=True)


def test_a_pass_has_the_rows_of_unfinished_texts_and_their_company_alone(tiny):
    with counted(tiny.lvlm) as (_, passes):
        staggered(tiny, gate(tiny, ALONG), LENGTHS)
    steps = [count for count, tokens in passes if tokens == 1]
    # Step by step: all three texts, the first one's branch catching up by itself; that branch along; the second one's
    # too; from the first text's end on two texts and two branches; from the third's end on one of each.
    assert steps == [3, 1, 4, 5, *[4] * 8, *[2] * 12]


def test_a_row_whose_branch_is_read_at_the_end_of_its_text_gets_no_company(tiny):
    with counted(tiny.lvlm) as (_, passes):
        staggered(tiny, gate(tiny, ([0, LENGTHS[0] - 1], [], [])), LENGTHS)
    assert [count for count, tokens in passes if tokens == 1] == [*[3] * 3, *[2] * 8, *[1] * 12]


def test_without_company_the_rows_of_the_text_leave(tiny):
    with widths(tiny.lvlm) as found:
        staggered(tiny, gate(tiny, ([], [], [])), LENGTHS)
    assert found[1:] == [3] * 3 + [2] * 8 + [1] * 12


def test_texts_that_end_together_leave_nothing_behind(tiny):
    out = staggered(tiny, gate(tiny, ALONG), (6, 6, 6))
    assert out.ids.shape[1] == 6
    again = staggered(tiny, gate(tiny, ALONG), LENGTHS)
    assert torch.equal(again.ids[:, :3], out.ids[:, :3])
