"""A text that has ended costs no further pass: its rows leave the batch, and every other text stays what it was."""

import pytest
import torch

from veridical.pipelines.registry import DECODERS

from .ends import LONG, staggered, staying, widths
from .setting import READING

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


def acting(tiny, name):
    """A gate whose branch has rows from the first step on; of one that is read late see test_late_ends.py."""
    return "gate:threshold='-inf'" if name == "gate" else tiny.acting(name)


def test_rows_of_ended_texts_leave_with_their_branches_and_the_rest_is_unchanged(tiny, name, monkeypatch):
    with widths(tiny.lvlm) as left:
        out = staggered(tiny, [acting(tiny, name)])
    with staying(monkeypatch), widths(tiny.lvlm) as stayed:
        whole = staggered(tiny, [acting(tiny, name)])
    assert torch.equal(out.ids, whole.ids)
    real = torch.arange(LONG) < torch.tensor([2, LONG, 4])[:, None]
    torch.testing.assert_close(out.logits[real], whole.logits[real], rtol=0, atol=2e-5)  # float32, 8 layers
    for method, acted in out.acted.items():
        assert torch.equal(acted.acted, whole.acted[method].acted)
    blocks, steps = stayed[-1] // 3, LONG - 1
    assert stayed[-steps:] == [3 * blocks] * steps
    ends = [3 * blocks, 2 * blocks, 2 * blocks, blocks, blocks]
    assert left[-steps:] == (stayed[-steps:] if getattr(DECODERS.type(name), "keeps_rows", False) else ends)


@pytest.mark.parametrize("detector", READING)
def test_a_detector_reads_along_as_if_no_row_had_left(tiny, detector, monkeypatch):
    one = tiny.detector(detector)
    with widths(tiny.lvlm) as left:
        risk = staggered(tiny, detectors=[one]).risk[detector]
    with staying(monkeypatch):
        whole = staggered(tiny, detectors=[one]).risk[detector]
    assert left[-1] < left[-LONG + 1]
    torch.testing.assert_close(risk, whole, rtol=1e-4, atol=2e-5, equal_nan=True)
