"""Guided decoding and the policies on the embedded model: plain at their neutral ends, and each image on its own."""

import pytest

import veridical
from veridical.datasets.world import scene
from veridical.decoders.procedures.drop import Drop, drop
from veridical.decoders.procedures.flip import Flip, flip
from veridical.decoders.procedures.guided import Guided
from veridical.decoders.procedures.reask import Reask

SAMPLING = {"do_sample": True, "temperature": 0.9, "top_p": 0.95, "top_k": 0}


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded", device="cpu")


@pytest.fixture(scope="module")
def images():
    return [scene("test", index).image for index in range(3)]


def caption(lvlm, images, decoders=(), detectors=(), **options):
    return lvlm.caption(images, decoders, detectors, max_new_tokens=options.pop("max_new_tokens", 20), **options)


def texts(answers):
    return [answer.text for answer in answers]


# ---------------------------------------------------------------------- guided decoding


def test_one_candidate_is_plain_sampling(lvlm, images):
    guided = caption(lvlm, images, [Guided("entropy", candidates=1, chunk=6)], ["entropy"], seed=3)
    plain = caption(lvlm, images, [], ["entropy"], seed=3, **SAMPLING)
    assert texts(guided) == texts(plain)
    for one, other in zip(guided, plain, strict=True):
        assert one.risk["entropy"] == pytest.approx(other.risk["entropy"], abs=1e-4)


def test_a_guided_text_depends_on_its_image_and_seed_alone(lvlm, images):
    guide, most = Guided("entropy", candidates=2, chunk=5), 10
    together = caption(lvlm, images, [guide], seed=5, max_new_tokens=most)
    alone = caption(lvlm, images[1:2], [guide], seed=6, max_new_tokens=most)
    assert texts(alone) == texts(together)[1:2]
    shuffled = caption(lvlm, images[::-1], [guide], seed=[7, 6, 5], max_new_tokens=most)
    assert texts(shuffled)[::-1] == texts(together)
    assert texts(caption(lvlm, images, [guide], seed=9, max_new_tokens=most)) != texts(together)


def test_more_candidates_lower_the_risk_that_guides(lvlm, images):
    """Entropy is in the logits; image attention in the readings."""
    for detector in ("entropy", "image_attention"):
        mean = []
        for count in (1, 5):
            guide = Guided(detector, candidates=count, chunk=4)
            answers = caption(lvlm, images[:2], [guide], [detector], max_new_tokens=8)
            risks = [risk for answer in answers for risk in answer.risk[detector]]
            mean.append(sum(risks) / len(risks))
        assert mean[1] < mean[0], detector


def test_the_first_chunk_is_the_least_risky_of_what_its_streams_draw(lvlm, images):
    """Drawn here one by one, without the procedure."""
    from veridical.decoders.procedures.guided import STREAM

    guided = caption(lvlm, images, [Guided("entropy", candidates=4, chunk=5)], seed=2, max_new_tokens=5)
    for row, image in enumerate(images):
        drawn = [
            caption(lvlm, [image], [], ["entropy"], seed=2 + row + j * STREAM, max_new_tokens=5, **SAMPLING)[0]
            for j in range(4)
        ]
        least = min(drawn, key=lambda answer: sum(answer.risk["entropy"]) / len(answer.risk["entropy"]))
        assert guided[row].text == least.text


def test_a_guided_text_never_runs_past_the_most_new_tokens(lvlm, images):
    answers = caption(lvlm, images, [Guided("entropy", candidates=2, chunk=8)], max_new_tokens=11)
    assert [len(answer.tokens) for answer in answers] == [11] * 3
    assert [answer.acted["guided"]["steps"] for answer in answers] == [2] * 3


def test_a_decoder_behind_it_is_in_every_candidate(lvlm, images):
    guide, some = Guided("entropy", candidates=2, chunk=6), images[:2]
    answers = caption(lvlm, some, [guide, "vcd"], seed=1, max_new_tokens=12)
    assert all(answer.acted["vcd"]["acted"] == answer.acted["vcd"]["steps"] > 0 for answer in answers)
    assert texts(answers) != texts(caption(lvlm, some, [guide], seed=1, max_new_tokens=12))


@pytest.mark.parametrize(("options", "message"), [
    ({"num_beams": 2}, "samples its candidates: use num_beams=1"),
    ({"temperature": 0.5, "do_sample": True}, "temperature=0.5 is a setting of sampling"),
    ({"detectors": ["lookback_lens:context='prompt'"]}, "with the same settings"),
])  # fmt: skip
def test_what_guided_decoding_cannot_do_is_refused(lvlm, images, options, message):
    with pytest.raises(ValueError, match=message):
        caption(lvlm, images, [Guided()], options.pop("detectors", ()), **options)


# ---------------------------------------------------------------------- policies


def test_policies_that_never_act_leave_the_plain_text(lvlm, images):
    plain = texts(caption(lvlm, images))
    for policy in (Flip("entropy", "inf"), Drop("entropy", "inf"), Reask("entropy", "inf")):
        answers = caption(lvlm, images, [policy])
        assert texts(answers) == plain
        assert all(next(iter(answer.acted.values()))["acted"] == 0 for answer in answers)


def test_flipping_while_asking_is_flipping_afterwards(lvlm, images):
    question = "Is there a dog in the image?"
    plain = lvlm.answer(images, question, detectors=["entropy"])
    middle = sorted(answer.risk["entropy"][0] for answer in plain)[1]
    answers = lvlm.answer(images, question, [Flip("entropy", middle)])
    assert texts(answers) == texts(flip(plain, "entropy", middle))
    assert [answer.text != before.text for answer, before in zip(answers, plain, strict=True)].count(True) == 1
    assert all(answer.risk == {} for answer in answers)


def test_dropping_while_asking_is_dropping_afterwards(lvlm, images):
    plain = caption(lvlm, images, [], ["entropy"], max_new_tokens=40)
    answers = caption(lvlm, images, [Drop("entropy", 0.9)], ["entropy"], max_new_tokens=40)
    after = drop(plain, "entropy", 0.9)
    assert texts(answers) == texts(after) != texts(plain)
    assert [len(answer.risk["entropy"]) for answer in answers] == [len(answer.tokens) for answer in answers]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_after_asking_again_no_sentence_is_above_the_threshold(lvlm, images, temperature):
    policy, some = Reask("entropy", 0.95, decoder="vcd", temperature=temperature), images[:2]
    answers = caption(lvlm, some, [policy], ["entropy"], max_new_tokens=24)
    assert all(risk <= 0.95 for answer in answers for risk in answer.risk["entropy"])
    assert any(answer.acted["reask"]["acted"] for answer in answers)
    alone = caption(lvlm, some[1:], [policy], max_new_tokens=24, seed=1)
    assert texts(alone) == texts(answers)[1:]


def test_asking_again_puts_the_other_decoders_sentence_in_the_place_of_a_risky_one(lvlm, images):
    """A high threshold for the new sentence cannot be had with one for the old: the decoder must make it surer."""
    plain = caption(lvlm, images, [], ["image_attention"], max_new_tokens=40)
    (first,) = plain[:1]
    riskiest = max(first.risk["image_attention"])
    policy = Reask("image_attention", riskiest - 1e-6, decoder="vcd")
    again = caption(lvlm, images[:1], [policy], max_new_tokens=40)[0]
    assert again.acted["reask"]["acted"] == 1
    assert again.text != first.text
