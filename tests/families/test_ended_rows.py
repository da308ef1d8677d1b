"""In every family, rows of texts that have ended leave the batch, or all of them stay."""

import pytest
import torch

from ..contract.ends import LONG, staggered, staying, widths

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
STAY: set[str] = set()  # families whose caches are no keys and values of rows


@pytest.mark.parametrize("decoder", ["greedy", "vcd"])
def test_a_row_that_has_ended_leaves_and_the_other_goes_on_unchanged(exact, decoder, monkeypatch):
    lengths = (2, LONG)
    with widths(exact.lvlm) as left:
        out = staggered(exact, [decoder], lengths)
    with staying(monkeypatch):
        whole = staggered(exact, [decoder], lengths)
    assert torch.equal(out.ids, whole.ids)
    real = torch.arange(LONG) < torch.tensor(lengths)[:, None]
    torch.testing.assert_close(out.logits[real], whole.logits[real], rtol=0, atol=1e-6)
    blocks = 2 if decoder == "vcd" else 1
    assert left[-1] == (2 if exact.family.name in STAY else 1) * blocks
