"""An edit that declares which positions it may change is handed these alone, and nothing else is computed for it."""

import pytest
import torch

from veridical.decoders.attention_sites import producing_rows, text_rows
from veridical.pipelines.engine import attention, call
from veridical.pipelines.engine.call import Sequences
from veridical.pipelines.engine.declarations import AttentionEdit, Branch, HeadEdit

from .setting import STEPS, Declares, difference

BEHIND = 7  # words behind the image, in the row that has most of them
ORDER = 2e-6  # of the largest logit: an attention's sums in another order
ROWS = {"producing": producing_rows, "after_image": text_rows}


def sequences(seen, images=((0, 1, 1, 0, 0), (0, 0, 1, 0, 0))):
    image = torch.tensor(images).bool()
    return Sequences(image, torch.zeros_like(image), torch.arange(len(image)), seen)


def test_the_first_query_that_may_change_by_what_is_declared():
    """A prompt of five positions whose image ends at the third in both rows, in one pass and in two."""
    whole = sequences(5)
    assert [whole.first_changed(changes, 5) for changes in ("every", "after_image", "producing")] == [0, 3, 4]
    rest = sequences(5)  # the prompt's last three alone
    assert [rest.first_changed(changes, 3) for changes in ("every", "after_image", "producing")] == [0, 1, 2]
    behind = sequences(8)  # three tokens read together
    assert [behind.first_changed(changes, 3) for changes in ("every", "after_image", "producing")] == [0, 0, 0]
    begun = sequences(2)  # the beginning of the prompt alone: the last query, which such an edit leaves as it is
    assert [begun.first_changed(changes, 2) for changes in ("every", "after_image", "producing")] == [0, 1, 1]


def test_a_row_without_an_image_concerns_all_of_its_prompt():
    assert sequences(5, ((0, 1, 1, 0, 0), (0, 0, 0, 0, 0))).first_changed("after_image", 5) == 0


def doubled(changes, seen):
    """Scores of the image times two in the rows that `changes` names; the numbers of queries go to `seen`."""

    def apply(scores, where):
        seen.append(scores.shape[2])
        rows = ROWS[changes](where, scores.shape[2])
        return torch.where(rows[:, None, :, None] & where.image[:, None, None], 2 * scores, scores)

    return apply


@pytest.mark.parametrize(("changes", "queries"), [("producing", 1), ("after_image", BEHIND)])
def test_such_an_edit_is_handed_these_queries_and_leads_to_the_same_logits(tiny, changes, queries):
    few, all_of_them = [], []
    ours = tiny.logits([Declares([AttentionEdit([2, 5], doubled(changes, few), on="scores", changes=changes)])])
    whole = tiny.logits([Declares([AttentionEdit([2, 5], doubled(changes, all_of_them), on="scores")])])
    assert few == [queries] * 2 + [1] * (2 * STEPS - 2)
    assert all_of_them == [tiny.inputs["input_ids"].shape[1]] * 2 + [1] * (2 * STEPS - 2)
    assert difference(ours, whole) < ORDER
    assert difference(ours, tiny.plain()) > 1e-3


@pytest.mark.parametrize("changes", ["producing", "after_image"])
def test_heads_are_handed_over_in_the_same_way(tiny, changes):
    def halved(heads, where):
        return torch.where(ROWS[changes](where, heads.shape[1])[:, :, None, None], heads / 2, heads)

    declared = [[HeadEdit([3], halved, changes=changes)], [HeadEdit([3], halved)]]
    ours, whole = (tiny.logits([Declares(one)]) for one in declared)
    assert difference(ours, whole) < ORDER
    assert difference(ours, tiny.plain()) > 1e-4


def test_edits_of_one_layer_with_other_queries_meet_in_the_same_attention(tiny):
    """Scores behind the image and probabilities of the last row: each has its own, as if it were handed all rows."""
    handed = []

    def first_only(weights, where):
        """All attention to the first key that may be seen, in the rows that produce tokens."""
        handed.append(weights.shape[2])
        rows = producing_rows(where, weights.shape[2])[:, None, :, None]
        return torch.where(rows, torch.nn.functional.one_hot(weights.argmax(-1), weights.shape[-1]).float(), weights)

    def edits(**where):
        text = {"changes": "after_image"} if where else {}
        return [
            AttentionEdit([4], doubled("after_image", []), on="scores", **text), AttentionEdit([4], first_only, **where)
        ]  # fmt: skip

    ours, whole = (tiny.logits([Declares(edits(**where))]) for where in ({"changes": "producing"}, {}))
    assert [handed[0], handed[STEPS]] == [1, tiny.inputs["input_ids"].shape[1]]
    assert difference(ours, whole) < ORDER
    assert difference(ours, tiny.logits([Declares(edits()[:1])])) > 1e-3


@pytest.mark.parametrize("on", ["scores", "probabilities"])
def test_an_edit_may_compute_in_another_precision(tiny, on):
    """What it returns is taken in the model's own, as the values behind it are."""
    wide = AttentionEdit([2], lambda weights, where: weights.double().roll(1, -1), on=on)
    own = AttentionEdit([2], lambda weights, where: weights.roll(1, -1), on=on)
    assert torch.equal(tiny.logits([Declares([wide])]), tiny.logits([Declares([own])]))


def test_an_edit_of_the_rows_of_a_branch_copies_no_keys(tiny):
    shared = []

    def look(scores, where):
        shared.append((len(where.key), where.key.untyped_storage().nbytes() >= 2 * where.key.nbytes))
        return scores

    branch = Branch("other", {**tiny.inputs, "pixel_values": -tiny.inputs["pixel_values"]})
    tiny.generate([Declares([AttentionEdit([2], look, on="scores", branch="other"), branch])])
    assert shared == [(3, True)] * STEPS


def test_a_steps_attention_is_not_computed_twice(tiny, monkeypatch):
    """sdpa of one query is left out in the layers whose attention an edit computes anew; the prompt's is not."""
    queries, touched = [], tiny.lvlm.layers[2].self_attn
    theirs = attention.ALL_ATTENTION_FUNCTIONS["sdpa"]

    def counted(module, query, *values, **more):
        queries.extend([query.shape[2]] if module is touched else [])
        return theirs(module, query, *values, **more)

    def refused(*values, **more):
        raise AssertionError("the attention of one query, which the edit computes")

    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS, "sdpa", counted)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", refused)
    monkeypatch.setattr(call, "scaled_dot_product_attention", refused)
    tiny.generate([Declares([AttentionEdit([2], lambda scores, where: scores, on="scores")])])
    assert queries == [tiny.inputs["input_ids"].shape[1]]
