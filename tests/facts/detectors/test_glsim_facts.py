"""GLSim's arithmetic in the numbers of its specification. 1e-6 unless said."""

import pytest
import torch

from veridical.detectors.glsim import GLSim, pair
from veridical.pipelines.engine.record import Record

OBJECT, PROMPT = torch.tensor([1.0, 0, 1]), torch.tensor([1.0, 1, 0])
PATCHES = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]])
PROBABILITIES = torch.tensor([0.30, 0.01, 0.20])


class Head:
    """Rows of which the only word has the patches' log-probabilities once their normalisers are taken away."""

    weight = torch.zeros(1, 3)
    bias = None


def record(prompt, patches, log_probabilities, word):
    """One token whose states are these; Head's logit is 0, so that a normaliser is minus a log-probability."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    one, readings = torch.zeros(1, 1), {
        "glsim/patches": patches[None, None, None], "glsim/normalisers": -log_probabilities[None, None, None],
        "glsim/prompt": prompt[None, None, None], "glsim/local": word[None, None, None],
    }  # fmt: skip
    return Record(ids, ids == 0, one, one, one, torch.tensor([5]), readings)


def detector(**fields):
    built = GLSim(**fields)
    object.__setattr__(built, "unembedding", Head())
    return built


def test_two_patches_of_three():
    g, loc = pair(PROMPT, PATCHES, PROBABILITIES, OBJECT, OBJECT, 2)
    assert (float(g), float(loc)) == pytest.approx((0.5, 0.908248), abs=1e-6)
    assert 0.6 * float(g) + 0.4 * float(loc) == pytest.approx(0.663299, abs=1e-6)


def test_the_risk_is_half_of_one_minus_the_similarity():
    given = record(PROMPT, PATCHES, PROBABILITIES.log(), OBJECT)
    assert float(detector(patches=2).score(given)) == pytest.approx(0.168350, abs=1e-6)


def test_more_patches_than_there_are_take_all():
    assert float(pair(PROMPT, PATCHES, PROBABILITIES, OBJECT, OBJECT, 32)[1]) == pytest.approx(0.605499, abs=1e-6)


def test_opposed_states_have_a_risk_above_a_half():
    """g = −0.2 and loc = 0.1: s = −0.08."""
    flat = lambda cosine: torch.tensor([cosine, (1 - cosine**2) ** 0.5, 0.0])
    word = torch.tensor([1.0, 0, 0])
    given = record(flat(-0.2), flat(0.1)[None], torch.zeros(1), word)
    assert float(detector().score(given)) == pytest.approx(0.54, abs=1e-6)


def test_the_size_of_a_state_changes_nothing():
    plain = pair(PROMPT, PATCHES, PROBABILITIES, OBJECT, OBJECT, 2)
    larger = pair(7 * PROMPT, PATCHES * torch.tensor([[2.0], [3], [5]]), PROBABILITIES, 0.1 * OBJECT, 9 * OBJECT, 2)
    torch.testing.assert_close(plain, larger)


def test_of_equal_probabilities_the_first_patch_counts():
    equal = torch.full((3,), 0.2)
    assert float(pair(PROMPT, PATCHES, equal, OBJECT, OBJECT, 1)[1]) == pytest.approx(1, abs=1e-6)


def test_a_zero_state_is_like_nothing():
    g, loc = pair(torch.zeros(3), torch.zeros(3, 3), PROBABILITIES, OBJECT, OBJECT, 2)
    assert (float(g), float(loc)) == (0, 0)


def test_places_without_a_patch_do_not_count():
    padded = torch.cat([PATCHES, torch.zeros(2, 3)]), torch.cat([PROBABILITIES.log(), torch.full((2,), -torch.inf)])
    found = pair(PROMPT, *padded, OBJECT, OBJECT, 32)[1]
    assert float(found) == pytest.approx(0.605499, abs=1e-6)


def test_the_released_code_exchanges_the_layers_of_the_global_term():
    assert GLSim.official() == GLSim(order="code")
    assert (GLSim().layer, GLSim().object_layer, GLSim().patches, GLSim().weight) == (-1, -2, 32, 0.6)


def test_without_its_model_the_risk_is_refused():
    with pytest.raises(ValueError, match=r"take the detector that for_model\(lvlm\) returns"):
        GLSim().score(record(PROMPT, PATCHES, PROBABILITIES.log(), OBJECT))
