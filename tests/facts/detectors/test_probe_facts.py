"""Probes, spans, labels and the newer detectors in numbers from their specifications. 1e-6 unless said."""

import pytest
import torch

from veridical.detectors.dhcp import DHCP, answer_class
from veridical.detectors.logit_lens import LogitLens, renormalised
from veridical.detectors.lookback_lens import LookbackLens, trailing_mean
from veridical.detectors.margin import Margin, spellings, yes_no_margin
from veridical.detectors.probe import MLP, Fitting, Linear, fit_linear, fit_mlp, sample_weights
from veridical.detectors.vhd import VHD, distance
from veridical.flows.benchmarks.base import Mark
from veridical.flows.detection.span_labels import Unit, mentions, predefined_spans, token_labels, units, windows

from .test_detector_facts import WITH_IMAGE, WITHOUT_IMAGE, P, record


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found).float(), torch.tensor(expected).float(), rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- DHCP

W1, B1 = torch.tensor([[1.0, 0, -1, 2], [0, 1, 1, -1]]), torch.tensor([0.1, -0.05])
W2, B2 = torch.tensor([[1.0, -1], [-2, 1]]), torch.tensor([0.0, 0.2])
FIRST, SECOND = [[0.10, 0.20], [0.05, 0.15]], [[0.30, 0.00], [0.15, 0.05]]  # head, image token


def worked(mean=0.0, scale=1.0):
    return MLP(mean + torch.zeros(4), scale + torch.zeros(4), W1, B1, W2, B2)


def with_probe(detector, probe):
    return detector._with(probe, {})


def test_the_worked_network():
    x = torch.tensor([[0.20, 0.10, 0.10, 0.10]])
    weight, bias = worked().folded
    close(x @ weight.T + bias, [[0.40, 0.05]])
    close(worked().classes(x @ weight.T + bias), [[0.710950, 0.289050]])
    close(worked()(x), [0.289050])


def test_columns_are_averaged_over_the_rows_and_flattened_by_layer_head_and_image_token():
    given = record(tokens=2, **{"dhcp/columns": [[FIRST], [SECOND]]})
    per_token = DHCP().token_features(given)
    close(per_token[0], [[0.10, 0.20, 0.05, 0.15], [0.30, 0.00, 0.15, 0.05]])
    close(per_token.mean(1), [[0.20, 0.10, 0.10, 0.10]])


def test_every_token_has_the_risk_of_the_averaged_answer():
    """What is read of a token is W₁'s part alone: its mean over tokens is W₁ of the mean."""
    weight, _ = worked().folded
    parts = [(weight @ torch.tensor(rows).flatten()).tolist() for rows in (FIRST, SECOND)]
    given = record(tokens=2, dhcp=[[parts[0]], [parts[1]]])
    found = with_probe(DHCP(), worked()).score(given)
    close(found, [[0.289050, 0.289050]])
    given.mask = torch.tensor([[True, False]])  # the second is padding
    close(with_probe(DHCP(), worked()).score(given), [[worked()(torch.tensor(FIRST).flatten()).item()] * 2])
    own = with_probe(DHCP(rows="own"), worked()).score(given)
    close(own[0, 1], worked()(torch.tensor(SECOND).flatten()).item())


def test_scaling_folded_into_the_first_layer_changes_nothing():
    x, mean, scale = torch.rand(5, 4), torch.rand(4), torch.rand(4) + 0.5
    close(worked(mean, scale)(x), worked()((x - mean) / scale).tolist())


def test_a_detector_with_a_probe_equals_one_with_the_same_weights_and_never_one_without():
    """Equal detectors have equal risks; tables, sets and caches take one for the other."""
    fitted = with_probe(DHCP(), worked())
    assert fitted != DHCP()
    assert fitted == with_probe(DHCP(), worked())
    assert len({fitted, with_probe(DHCP(), worked()), DHCP()}) == 2
    assert fitted != with_probe(DHCP(), worked(mean=1.0))
    assert fitted != with_probe(DHCP(rows="own"), worked())
    assert fitted != DHCP()._with(worked(), {"model": {"type": "llava"}})  # `for_model` refuses other models
    line = lambda bias: with_probe(LookbackLens(), Linear(torch.ones(4), torch.tensor(bias)))
    assert line(0.5) == line(0.5) != line(0.25)
    assert LookbackLens(window=2) == LookbackLens(window=2) != LookbackLens()


def test_two_and_three_of_four_classes_are_hallucinated():
    before = torch.tensor([[0.0, 0.0]])
    four = MLP(torch.zeros(1), torch.ones(1), W1, B1, torch.zeros(4, 2), torch.tensor([1.0, 2, 3, 4]).log())
    close(four.classes(before), [[0.1, 0.2, 0.3, 0.4]])
    close(four.hallucinated(before), [0.7])


def test_answers_are_numbered_as_in_the_code_and_not_as_in_its_readme():
    pairs = (("yes", "yes"), ("no", "no"), ("no", "yes"), ("yes", "no"))
    assert [answer_class(*pair) for pair in pairs] == [0, 1, 2, 3]


def test_every_class_is_drawn_equally_often():
    weights = sample_weights(torch.tensor([0] * 8 + [1] * 2))
    close(weights, [1 / 8] * 8 + [1 / 2] * 2)
    assert float(weights[:8].sum()) == float(weights[8:].sum())


# ---------------------------------------------------------------------- fitting


def separable(items=200, features=6):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(items) % 4 % 3 % 2  # a quarter is 1
    x = torch.randn(items, features, generator=generator) * 0.01
    x[:, 2] += 0.05 * labels
    return x, labels, [item // 2 for item in range(items)]


def test_a_fitted_line_gives_hallucinated_items_the_higher_risk():
    x, labels, _ = separable()
    risk = fit_linear(x, labels)(x)
    assert risk[labels == 1].min() > risk[labels == 0].max()


def test_a_fitted_line_is_scikit_learns_on_scaled_features():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, labels, _ = separable()
    x = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    known = x.double().numpy()
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(known, labels.numpy())
    expected = torch.tensor(reference.predict_proba(known)[:, 1])
    torch.testing.assert_close(fit_linear(x, labels)(x).double(), expected, rtol=0, atol=2e-3)  # n − 1 in our deviation


def test_a_fitted_network_gives_hallucinated_items_the_higher_risk_and_repeats_with_its_seed():
    x, labels, groups = separable()
    (one, found), (two, _), (other, _) = (
        fit_mlp(x, labels, groups, fitting=Fitting(batch=16, seed=seed)) for seed in (0, 0, 1)
    )
    risk = one(x)
    assert risk[labels == 1].min() > risk[labels == 0].max()
    assert found["held_out_auroc"] == 1
    assert torch.equal(one.weight_1, two.weight_1)
    assert not torch.equal(one.weight_1, other.weight_1)


def test_a_network_has_as_many_hidden_units_as_its_fitting_names():
    x, labels, groups = separable()
    small, _ = fit_mlp(x, labels, groups, fitting=Fitting(hidden=3, epochs=1))
    usual, _ = fit_mlp(x, labels, groups, fitting=Fitting(epochs=1))
    assert small.weight_1.shape == (3, x.shape[1])
    assert small.weight_2.shape == (2, 3)
    assert usual.weight_1.shape == (128, x.shape[1])
    assert small(x).shape == labels.shape


def test_groups_that_are_held_out_are_not_trained_on():
    """Labels of the held-out groups turned round leave the weights alone, and only their AUROC changes."""
    from veridical.detectors.probe import _held_out

    x, labels, groups = separable()
    kept = _held_out(groups, torch.Generator().manual_seed(0))
    assert {g for g, k in zip(groups, kept.tolist(), strict=True) if k}.isdisjoint(
        g for g, k in zip(groups, kept.tolist(), strict=True) if not k
    )
    assert 0.15 < float(kept.float().mean()) < 0.25
    turned = torch.where(kept, 1 - labels, labels)
    (one, right), (two, wrong) = (fit_mlp(x, y, groups, fitting=Fitting(epochs=1)) for y in (labels, turned))
    assert torch.equal(one.weight_1, two.weight_1)
    assert right["held_out_auroc"] == pytest.approx(1 - wrong["held_out_auroc"])


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.rand(4, 2), torch.zeros(4).long(), "items of all classes 0 to 1; found"),
        (torch.rand(4, 2), torch.zeros(3).long(), r"found \(4, 2\) and \(3,\)"),
        (torch.rand(4, 2), torch.tensor([0, 1, 2, 1]), "all classes 0 to 1"),
    ],
)
def test_items_that_cannot_be_fitted_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_linear(features, labels)


# ---------------------------------------------------------------------- Lookback Lens


def test_the_worked_classifier_picks_the_third_chunk():
    """The paper's P is of faithful: w = [2, −1], b = −0.3. The risk is one minus it."""
    faithful = Linear(torch.tensor([2.0, -1.0]), torch.tensor(-0.3))
    close(faithful(torch.tensor([[0.6, 0.2], [0.4, 0.5], [0.7, 0.3]])), [0.668188, 0.500000, 0.689974])
    risky = Linear(-faithful.weight, -faithful.bias)
    chunks = record(tokens=3, lookback=[[[0.6, 0.2]], [[0.4, 0.5]], [[0.7, 0.3]]])
    found = with_probe(LookbackLens(), risky).score(chunks)
    close(found, [[1 - 0.668188, 0.5, 1 - 0.689974]])
    assert int(found.argmin()) == 2


def test_a_window_averages_over_the_tokens_before():
    """Ratios .9 to .0: the full windows of eight are .55, .45, .35; the first tokens have what there is."""
    ratios = torch.arange(9, -1, -1).float()[None, :, None] / 10
    found = trailing_mean(ratios, 8)[0, :, 0]
    close(found[7:], [0.55, 0.45, 0.35])
    close(found[:3], [0.9, 0.85, 0.8])
    assert torch.equal(trailing_mean(ratios, 1), ratios)


def test_the_window_reaches_the_probe():
    given = record(tokens=10, lookback=[[[r / 10]] for r in range(9, -1, -1)])
    found = LookbackLens(window=8, weights=None).score(given)
    close(found[0, 7:], [0.45, 0.55, 0.65])


def test_windows_with_one_bad_token_are_bad():
    assert [unit.label for unit in windows([1, 0, 0, 0, 0, 0, 0, 0, 0, 0])] == [1, 0, 0]
    assert [unit.label for unit in windows([0, 0, 0, 1, 0, 0, 0, 0, 0, 0])] == [1, 1, 1]
    assert windows([0] * 7) == []


def test_the_worked_spans():
    found = predefined_spans([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0])
    assert [(list(unit.tokens), unit.label) for unit in found] == [([0, 1, 2], 0), ([3, 4, 5, 8, 9], 1), ([10, 11], 0)]
    assert [(list(unit.tokens), unit.label) for unit in predefined_spans([0, 0])] == [([0, 1], 0)]
    assert [(list(unit.tokens), unit.label) for unit in predefined_spans([1, 0])] == [([0], 1), ([1], 0)]


# ---------------------------------------------------------------------- labels

TEXT, TOKENS = "A hot dog and a cat.", ["A", " hot", " do", "g", " and", " a", " cat", "."]
MARKS = [Mark(2, 9, False), Mark(16, 19, True)]


def test_mentions_are_the_tokens_of_their_words():
    assert mentions(TEXT, TOKENS, MARKS) == [Unit([1, 2, 3], 1), Unit([6], 0)]


def test_tokens_of_hallucinated_words_are_hallucinated_and_all_others_are_not():
    assert token_labels(8, mentions(TEXT, TOKENS, MARKS)) == [0, 1, 1, 1, 0, 0, 0, 0]
    assert [unit.label for unit in units("tokens", TEXT, TOKENS, MARKS)] == [0, 1, 1, 1, 0, 0, 0, 0]


def test_another_unit_is_refused():
    with pytest.raises(ValueError, match="unit='letters' is none of words, mentions, tokens, spans, windows"):
        units("letters", TEXT, TOKENS, MARKS)


# ---------------------------------------------------------------------- margin


def test_the_worked_yes_no_margin():
    mass = torch.tensor([0.42 + 0.18, 0.25 + 0.05])
    close(yes_no_margin(mass), 0.693147)
    close(yes_no_margin(mass).sigmoid(), 0.666667)


def answer(ids, mass, margin):
    given = record(tokens=len(ids), **{"margin/answers": [[m] for m in mass]})
    given.ids, given.margin = torch.tensor([ids]), torch.tensor([margin])
    return Margin(spellings=((1, 2), (3, 4))).score(given)[0]


def test_the_risk_of_yes_is_the_probability_of_no_and_the_other_way_round():
    found = answer([2, 3, 9], [[0.6, 0.3], [0.6, 0.3], [0.6, 0.3]], [0.5, 0.5, 0.5])
    close(found, [1 / 3, 2 / 3, 0.25])


def test_the_plain_margin_of_the_worked_distribution():
    given = record()
    given.margin = torch.tensor([[P[0] - P[1]]])
    close(Margin().score(given), [[0.25]])


def test_spellings_are_single_tokens_in_three_casings():
    class Tokenizer:
        known = {"Yes": [5], " Yes": [6], "yes": [7, 8], " yes": [7, 9], "YES": [1, 2, 3], " YES": [6]}

        def encode(self, text, add_special_tokens):
            return self.known[text]

    assert spellings(Tokenizer(), "yes") == [5, 6]


def test_spellings_of_one_answer_alone_are_refused():
    with pytest.raises(ValueError, match="1 lists of ids: give one of yes, one of no"):
        Margin(spellings=((1, 2),))


# ---------------------------------------------------------------------- logit lens


def test_the_worked_renormalisation():
    close(renormalised(torch.tensor([2.0, 1, 0, -1]), 2), [0.731059, 0.268941, 0, 0])
    close(renormalised(torch.tensor([2.0, 1, 0, -1]), 50), [0.643914, 0.236883, 0.087144, 0.032059])


def test_the_confidence_is_the_largest_over_layers_and_the_risk_one_minus_it():
    parts = {"embedding": [[0.0, 0.1, 0.3]], "inner": [[0.5, 0.0, 0.2]], "last": [[0.2, 0.0, 0.0]]}
    given = record(tokens=2)
    given.readings = {f"logit_lens/{name}": torch.tensor([[rows]]) for name, rows in parts.items()}
    given.ids = torch.tensor([[0, 1]])
    close(LogitLens().confidence(given), [[[0.0, 0.5, 0.2], [0.1, 0.0, 0.0]]])
    close(LogitLens().score(given), [[0.5, 0.9]])


# ---------------------------------------------------------------------- T-VHD's other readings


def t_vhd(**options):
    second = [[0.5], [0.1], [0.2], [0.4]]
    with_image = [WITH_IMAGE, [[*value, 0.0, 0.0] for value in second]]
    without_image = [WITHOUT_IMAGE, [[0.0] * 3] * 4]
    given = distance(torch.tensor(with_image), torch.tensor(without_image), "norm")
    return -float(VHD(**options).score(record(vhd=[given.tolist()])))


def test_the_largest_of_the_whole_model_are_summed_where_asked():
    assert t_vhd(top=2) == pytest.approx(8.728427, abs=1e-6)
    assert t_vhd(top=2, over="model") == pytest.approx(9.328427, abs=1e-6)
    assert t_vhd(top=4, over="model") == pytest.approx(t_vhd(top=4), abs=1e-6)


def test_the_distances_of_the_worked_heads():
    with_image, without_image = torch.tensor(WITH_IMAGE), torch.tensor(WITHOUT_IMAGE)
    close(distance(with_image, without_image, "norm"), [2.828427, 0, 5, 1])
    close(distance(with_image, without_image, "squared"), [8, 0, 25, 1])
    close(distance(with_image, without_image, "relative"), [2.828427 / 4, 0, 1, 1 / (3**0.5 + 2**0.5)])
    close(distance(with_image[[0, 1, 3]], without_image[[0, 1, 3]], "cosine"), [1 - 1 / 3, 0, 1 - 2 / 6**0.5])
    relative = distance(with_image, without_image, "relative").tolist()
    close(distance(7 * with_image, 7 * without_image, "relative"), relative)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"top": 0}, "top=0 is below 1"), ({"over": "all"}, "over='all'"), ({"distance": "l1"}, "distance='l1'")],
)
def test_other_readings_of_t_vhd_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VHD(**options)
