"""What every detector that asks again must be, on the embedded model: the same alone, in a batch and in any order."""

import pytest
from PIL import ImageFilter

import veridical
from veridical.datasets.world import scene
from veridical.decoders import Gate
from veridical.decoders.procedures.drop import Drop, drop
from veridical.detectors import AnswerAgreement, ObjectAgreement, PTrue
from veridical.detectors.agreement import NoObjects
from veridical.detectors.sampled import STREAM
from veridical.pipelines.registry import DETECTORS
from veridical.pipelines.risk.asking import asks

ASKING = {
    "object_agreement": ObjectAgreement(samples=2),
    "answer_agreement": AnswerAgreement(samples=4),
    "p_true": PTrue(samples=1),
    "p_true of objects": PTrue(form="object"),
}
QUESTIONS = ["Is there a dog in the image?", "Is there a person in the image?"]


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded", device="cpu")


@pytest.fixture(scope="module")
def images():
    return [scene("test", number).image for number in range(2)]


@pytest.fixture(params=ASKING)
def asking(request):
    return ASKING[request.param]


def answered(lvlm, images, asking, **options):
    """Captions, or short answers where captions are too long to compare."""
    options = {"detectors": [asking], "max_new_tokens": 10, **options}
    if isinstance(asking, ObjectAgreement) or getattr(asking, "form", "") == "object":
        return lvlm.caption(images, **options)
    return lvlm.answer(images, QUESTIONS[: len(images)], **options)


def risks(answers):
    return [answer.risk for answer in answers]


def test_every_registered_one_is_tested_here():
    assert {DETECTORS.name_of(one) for one in ASKING.values()} == {n for n in DETECTORS.own if asks(DETECTORS.type(n))}


def test_it_gives_each_token_a_risk_between_0_and_1_under_its_name(lvlm, images, asking):
    plain = answered(lvlm, images[:1], asking, detectors=())
    for one, without in zip(answered(lvlm, images[:1], asking), plain, strict=True):
        assert (one.text, one.tokens) == (without.text, without.tokens)
        (risk,) = one.risk.values()
        assert len(risk) == len(one.tokens)
        assert all(0 <= value <= 1 for value in risk)
        assert repr(asking) in one.settings["detectors"]


def test_a_batch_is_each_image_alone_with_its_own_seed(lvlm, images, asking):
    together = answered(lvlm, images, asking)
    again = answered(lvlm, images, asking, batch_size=1)
    assert [one.details for one in together] == [one.details for one in again]
    for one, other in zip(risks(together), risks(again), strict=True):
        assert list(one) == list(other)
        assert next(iter(one.values())) == pytest.approx(next(iter(other.values())), abs=1e-5)


def test_it_runs_beside_a_detector_that_reads_along_and_a_procedure(lvlm, images, asking):
    alone = answered(lvlm, images[:1], asking)
    beside = answered(lvlm, images[:1], asking, detectors=["entropy", asking], decoders=["flip:threshold='inf'"])
    assert list(beside[0].risk) == ["entropy", DETECTORS.name_of(asking)]
    assert beside[0].risk[DETECTORS.name_of(asking)] == alone[0].risk[DETECTORS.name_of(asking)]


def test_it_is_refused_where_there_is_no_answer_to_ask_about(lvlm, images, asking):
    inputs = lvlm.prepare(images[:1], QUESTIONS[:1])
    message = r"asks the model again about a finished answer, its image and its question, which .* has not"
    with pytest.raises(ValueError, match=message):
        veridical.generate(lvlm, inputs, [], [asking], max_new_tokens=1)
    with pytest.raises(ValueError, match=message):
        veridical.score(lvlm, inputs, inputs["input_ids"][:, :2], [asking])
    with pytest.raises(ValueError, match=message):
        Gate("vcd", asking)


def test_two_of_one_name_are_refused(lvlm, images):
    with pytest.raises(ValueError, match="two detectors are 'p_true'"):
        lvlm.caption(images[:1], detectors=["p_true", "p_true:form='object'"], max_new_tokens=2)


def test_draws_are_those_of_plain_sampling_with_their_seeds(lvlm, images):
    """Draw j of image i has seed seeds[i] + 7919·(j + 1); the decoders of the run are in place."""
    options = {"decoders": ["sla"], "max_new_tokens": 6}
    found = lvlm.caption(images[:2], detectors=[ObjectAgreement(samples=2, seed=5)], seed=[3, 70], **options)
    for image, seed, one in zip(images, (3, 70), found, strict=False):
        for place, text in enumerate(one.details["object_agreement"]):
            own = seed + 5 + STREAM * (place + 1)
            drawn = lvlm.caption([image], do_sample=True, temperature=1.0, top_p=1.0, top_k=0, seed=own, **options)
            assert drawn[0].text == text


def test_a_blurred_sample_sees_the_blurred_image(lvlm, images):
    blurred = ObjectAgreement(samples=3, blur=(6.0, 0.1))
    (one,) = lvlm.caption(images[:1], detectors=[blurred], max_new_tokens=6, seed=1)
    for place, radius in enumerate((6.0, 0.1, 6.0)):
        image = images[0].filter(ImageFilter.GaussianBlur(radius))
        options = {"do_sample": True, "top_k": 0, "max_new_tokens": 6, "seed": 1 + STREAM * (place + 1)}
        assert lvlm.caption([image], **options)[0].text == one.details["object_agreement"][place]


def test_p_true_is_the_share_of_right_in_the_models_own_answer(lvlm, images):
    """By hand: one pass over the question about an object."""
    (one,) = lvlm.caption(images[:1], detectors=[PTrue(form="object")], max_new_tokens=16)
    from veridical.metrics.chair import Chair
    from veridical.pipelines.inputs.token_spans import inside, spans

    found, tokenizer = Chair().parse(one.text), lvlm.processor.tokenizer
    assert found.objects
    for name, (start, end) in zip(found.objects, found.spans, strict=True):
        article = "an" if name[0] in "aeiou" else "a"
        inputs = lvlm.prepare(images[:1], [f"Is there {article} {name} in the image?"])
        shares = lvlm.model(**inputs).logits[0, -1].detach().softmax(-1)
        mass = []
        for word in ("yes", "no"):
            forms = {gap + form for gap in ("", " ") for form in (word, word.capitalize(), word.upper())}
            ids = {tuple(tokenizer.encode(form, add_special_tokens=False)) for form in forms}
            mass.append(sum(float(shares[i[0]]) for i in ids if len(i) == 1))
        tokens = inside(spans(one.text, one.tokens), start, end)
        assert [one.risk["p_true"][t] for t in tokens] == pytest.approx([mass[1] / sum(mass)] * len(tokens), abs=1e-5)


def test_long_answers_are_refused_and_texts_without_objects_are_warned_of(lvlm, images):
    with pytest.raises(ValueError, match=r"at most 12 words .* object_agreement judges"):
        lvlm.caption(images[:1], detectors=["answer_agreement:samples=1"], max_new_tokens=16)
    with pytest.warns(NoObjects, match="none of 1 answers names one of the"):
        (one,) = lvlm.answer(images[:1], QUESTIONS[:1], detectors=["object_agreement:samples=1"], max_new_tokens=3)
    assert set(one.risk["object_agreement"]) == {0.0}


def test_a_policy_goes_by_agreement(lvlm, images):
    """Sentences with an object that one of three samples does not name are left out."""
    mine, options = "object_agreement:samples=3", {"max_new_tokens": 45, "seed": 1}
    plain = lvlm.caption(images[1:], detectors=[mine], **options)
    (dropped,) = lvlm.caption(images[1:], decoders=[Drop(ObjectAgreement(samples=3), 0.3)], **options)
    assert dropped.text == drop(plain, "object_agreement", 0.3)[0].text != plain[0].text
