"""OPERA's penalty, votes and way back, in numbers from its specification."""

import math

import pytest
import torch

import veridical
from veridical.decoders.gate import Gate
from veridical.decoders.opera import OPERA, columns, penalty
from veridical.decoders.retrospection import Choice, Sample, most_frequent, origins
from veridical.pipelines.engine.lookahead import last_rows
from veridical.testing.tiny import prompt, tiny_llava

WINDOW = torch.tensor([[0.10, 0, 0], [0.04, 0.20, 0], [0.06, 0.02, 0.30]])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=1e-12)


@pytest.fixture(scope="module")
def tiny():
    return veridical.LVLM(tiny_llava(8, 2))


# ---------------------------------------------------------------------- penalty


def test_products_over_all_that_follows_a_token():
    close(columns(WINDOW, 50.0), [30e-7, 10e-7, 15e-7])
    rho, column = penalty(torch.cat([torch.zeros(3, 2), WINDOW], 1), torch.zeros(5).bool(), 3, 50.0, 2)
    close(rho, 3e-6)
    assert int(column) == 0


def test_up_to_the_first_tokens_attention_to_the_image_is_a_reward():
    rows = torch.cat([torch.tensor([[0.5, 0.5]] * 2 + [[0.375, 0.125]]), WINDOW], 1)
    image = torch.tensor([True, False, False, False, False])
    close(penalty(rows, image, 3, 50.0, 10)[0], -0.375)
    close(penalty(rows, image, 3, 50.0, 3)[0], -0.375)
    close(penalty(rows, image, 3, 50.0, 2)[0], 3e-6)
    assert int(penalty(rows, image, 3, 50.0, 10)[1]) == 0, "votes are of the products all the same"


def test_of_equal_columns_the_first_counts_and_a_window_is_counted_from_where_it_begins():
    same = torch.tensor([[0.04, 0.0], [0.02, 0.04]])
    assert float(columns(same, 50.0)[0]) == float(columns(same, 50.0)[1])
    assert int(penalty(same, torch.zeros(2).bool(), 2, 50.0, 0)[1]) == 0
    assert int(penalty(same, torch.zeros(2).bool(), 9, 50.0, 0)[1]) == 7


def test_the_largest_of_the_heads_and_each_row_divided_by_its_sum():
    class Call:
        query = key = torch.zeros(1, 2, 1, 2)

        def scores(self, rows):
            return torch.tensor([[[[0.6, 0.4]], [[0.1, 0.9]]]]).log()

    close(last_rows(1, Call()), [0.4, 0.6])


def test_the_released_codes_half_precision():
    one = lambda value: columns(torch.tensor([[value / 50]]), 50.0, half=True)
    assert float(columns(WINDOW, 50.0, half=True)[0]) == pytest.approx(2.9802322e-06, abs=1e-12)
    assert float(one(0.29)) == 0
    assert float(one(0.301)) == pytest.approx(5.9604645e-08, abs=1e-14)
    rows = torch.full((22, 22), 0.2).tril()
    close(columns(rows, 50.0)[0], 1e15, 1e-4)
    assert math.isinf(columns(rows, 50.0, half=True)[0])


def test_a_product_is_capped_in_log_space_and_one_of_nothing_is_nothing():
    close(columns(torch.ones(60, 60).tril(), 1e6)[0], 1e-7 * math.exp(80), 1e-4)
    assert float(columns(torch.zeros(3, 3), 50.0).sum()) == 0


def test_a_penalty_turns_the_order_of_the_candidates():
    z = torch.tensor([[2.0, 1.5, 0]]) - torch.tensor([[0.8, 0.1, 0]])
    close(z.log_softmax(1), [-0.925289, -0.725289, -2.125289])
    close(torch.tensor([[2.0, 1.5, 0]]).log_softmax(1), [-0.554957, -1.054957, -2.554957])


# ---------------------------------------------------------------------- votes and returns


def test_the_smallest_of_the_most_frequent_columns_is_voted_for():
    assert int(most_frequent(torch.tensor([3, 1, 1, 3, 2]))) == 1
    assert most_frequent(torch.tensor([[0, 0, 4], [2, 3, 3]])).tolist() == [0, 3]


def choice(*votes):
    tokens = torch.arange(2).repeat(len(votes), 1)
    return Choice(tokens, torch.zeros(tokens.shape), torch.full((len(votes), 1), -math.inf), torch.tensor(votes))


def sample(mode="paper", steps=6, votes=(0, 0), visits=()):
    one = Sample(mode)
    for step in range(steps):
        one.follow(step, torch.arange(2), torch.tensor([20 + step, 30 + step]))
        one.add(step, choice(*votes))
    one.follow(steps, torch.arange(2), torch.tensor([20 + steps, 30 + steps]))
    one.visits.update(visits)
    return one


def test_a_sample_returns_behind_the_token_that_all_beams_have_voted_for_more_often_than_allowed():
    default = {"first": 0, "threshold": 6, "retries": 2}
    vote = lambda one, **changes: one.place(torch.tensor([0, 0]), **{**default, **changes})
    assert vote(sample()) == 1  # six votes and the one at hand
    assert vote(sample(), threshold=7) is None
    assert vote(sample(steps=5)) is None
    assert vote(sample(), first=1) is None
    assert sample().place(torch.tensor([0, 5]), 0, 6, 2) is None, "one beam has six votes only"


def test_after_as_many_returns_it_goes_to_the_token_itself_and_then_nowhere():
    where = lambda *visits: sample(visits=visits).place(torch.tensor([0, 0]), 0, 6, 2)
    assert [where(), where((1, 1)), where((1, 2)), where((1, 2), (0, 2))] == [1, 1, 0, None]


@pytest.mark.parametrize(("mode", "left"), [("paper", {1}), ("official", {1, 4})])
def test_going_back_forgets_and_rejects(mode, left):
    """The released code clears the rejections of the next step alone, and keeps the vote of the step it returns to."""
    one = sample(mode)
    one.rejected = {2: frozenset({(0, 5)}), 4: frozenset({(1, 6)})}
    one.go_back(1)
    assert one.rejected[1] == {(0, 22), (1, 32)}
    assert set(one.rejected) == left
    assert (len(one.script), one.anew, one.visits) == (1, 1, {1: 1})
    assert one.barred(1, 2, 40).nonzero().tolist() == [[0, 22], [1, 32]]
    assert not one.barred(4, 2, 40).any(), "only the step that is chosen anew"
    one.follow(0, torch.arange(2), torch.tensor([0, 0]))
    one.add(0, one.script[0])
    one.follow(1, torch.arange(2), torch.tensor([21, 31]))
    one.add(1, choice(3, 4))
    assert (len(one.script), one.anew) == (2, None)


def test_a_history_follows_its_text_and_in_the_released_code_its_place():
    for mode, expected in (("paper", [[2], [2]]), ("official", [[1], [2]])):
        one = Sample(mode)
        one.follow(0, torch.arange(2), torch.arange(2))
        one.add(0, choice(1, 2))
        one.follow(1, torch.tensor([1, 1]), torch.tensor([7, 8]))
        assert one.history.tolist() == expected
        assert one.selected[0] == {(1, 7), (1, 8)}


def test_of_beams_with_one_text_the_first_is_where_another_comes_from():
    before, now = torch.tensor([[5], [5], [6], [5]]), torch.tensor([[5, 1], [5, 2], [5, 1], [6, 3]])
    assert [one.tolist() for one in origins(before, now, 2)] == [[0, 0], [1, 0]]
    assert [one.tolist() for one in origins(None, now, 2)] == [[0, 1], [0, 1]]


# ---------------------------------------------------------------------- whole runs


def run(tiny, decoders, **options):
    inputs = prompt(tiny.model, 3, 5, 1)
    return veridical.generate(tiny, inputs, decoders, **{"max_new_tokens": 6, "do_sample": False, **options})


@pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
def test_a_weight_next_to_nothing_over_all_tokens_is_beam_search(tiny):
    for options in ({"num_beams": 3}, {}):
        found = run(tiny, [OPERA(weight=1e-12, candidates=128, retries=0)], **options)
        assert torch.equal(found.ids, run(tiny, [], **options).ids)


def test_without_retries_nothing_is_gone_back_to(tiny):
    lasting, long = {"scale": 40.0, "threshold": 2, "first_tokens": 1, "candidates": 3}, {"max_new_tokens": 12}
    assert float(run(tiny, [OPERA(**lasting, retries=1)], **long).acted["opera"].rollbacks) > 0
    out = run(tiny, [OPERA(**lasting, retries=0)], **long)
    assert out.acted["opera"].rollbacks is None
    assert torch.equal(out.ids, run(tiny, [OPERA(**{**lasting, "threshold": 99})], **long).ids)


def test_a_single_candidate_is_too_few_for_several_beams(tiny):
    with pytest.raises(ValueError, match="OPERA with candidates=1 leaves 3 beams one token each"):
        run(tiny, [OPERA(candidates=1)], num_beams=3)
    for options in ({"num_beams": 3, "decoder": OPERA.official(candidates=1)}, {"decoder": OPERA(candidates=1)}):
        assert run(tiny, [options.pop("decoder")], **options).ids.shape == (1, 6)


def test_what_cannot_go_back_is_refused_beside_it(tiny):
    with pytest.raises(ValueError, match="opera\\+opera: both go back in the text"):
        run(tiny, ["opera", "opera"])
    with pytest.raises(ValueError, match="gate and opera in one run: opera goes back in the text"):
        run(tiny, ["gate:decoder=sla", "opera"])
    with pytest.raises(ValueError, match="decoder='opera' goes back in the text, where the running risk cannot follow"):
        Gate("opera")
    with pytest.raises(ValueError, match="opera goes back in the text, and a streamer has shown it already"):
        run(tiny, ["opera"], streamer=object())
    assert Gate("opera:retries=0").decoder == "opera:retries=0"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"threshold": 1}, "threshold=1 is below 2"), ({"candidates": 0}, "candidates=0 is below 1"),
     ({"scale": -1}, "scale=-1 is below 0"), ({"retries": -1}, "retries=-1 is below 0"),
     ({"mode": "other"}, "mode='other'")],
)  # fmt: skip
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OPERA(**options)


def test_the_defaults_and_the_released_code():
    assert OPERA() == OPERA(
        scale=50.0, candidates=5, weight=1.0, threshold=15, first_tokens=10, retries=None, window=512, mode="paper"
    )
    assert OPERA.official() == OPERA(mode="official")
    assert (OPERA().returns, OPERA(candidates=3).returns, OPERA(retries=1).returns) == (5, 3, 1)
    assert OPERA(weight=0).is_neutral
