"""MVP: how paths become scores and scores an answer, in numbers to check by hand; then on the shipped model."""

import pytest
import torch

import veridical
from veridical.datasets.prompts import DETAIL_PROMPT
from veridical.datasets.world import scene
from veridical.decoders.procedures import mvp
from veridical.decoders.procedures.mvp import MVP, Path, decide, find_answer, path_scores
from veridical.pipelines.engine.logits import Forced
from veridical.pipelines.engine.record import confidence
from veridical.pipelines.procedures import Call

ANSWERS = ("yes", "no")
QUESTION = "Is there a dog in the image?"
QUICK = {"caption_tokens": 24, "path_tokens": 6, "paths": 2}
VIEWS = {
    "bottom-up": [Path(0.5, "yes", 0.2, direct=True), Path(0.3, "no", 0.9), Path(0.1, "no", 0.5)],
    "top-down": [Path(0.6, "no", 0.3, direct=True), Path(0.3, "yes", 0.8, direct=True)],
    "regular": [Path(0.7, "yes", 0.4, direct=True)],
}


# -- scores --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("view", "yes", "no"), [("bottom-up", 0.10, 0.32), ("top-down", 0.24, 0.18), ("regular", 0.28, 0.0)]
)
def test_a_path_counts_its_probability_times_its_certainty(view, yes, no):
    assert path_scores(VIEWS[view], ANSWERS) == pytest.approx({"yes": yes, "no": no})


@pytest.mark.parametrize(
    ("weights", "answer", "yes", "no"), [((0.4, 0.4, 0.2), "no", 0.192, 0.200), ((1, 1, 1), "yes", 0.62, 0.50)]
)
def test_the_worked_example_is_decided_by_the_weights(weights, answer, yes, no):
    found, total = decide([path_scores(paths, ANSWERS) for paths in VIEWS.values()], weights, ANSWERS)
    assert found == answer
    assert total == pytest.approx({"yes": yes, "no": no})


def test_the_released_code_counts_direct_answers_without_their_certainty():
    """It turns the worked example round."""
    scores = [path_scores(paths, ANSWERS, mode="official") for paths in VIEWS.values()]
    found, total = decide(scores, (0.4, 0.4, 0.2), ANSWERS)
    assert found == "yes"
    assert total == pytest.approx({"yes": 0.46, "no": 0.368})


def test_the_released_code_counts_a_path_without_an_answer_as_yes_and_we_leave_it_out():
    silent = [Path(0.4, None)]
    assert path_scores(silent, ANSWERS) == {"yes": 0.0, "no": 0.0}
    assert path_scores(silent, ANSWERS, mode="official") == {"yes": 0.4, "no": 0.0}


def test_scores_are_at_most_the_probability_of_the_paths():
    for paths in VIEWS.values():
        for value in path_scores(paths, ANSWERS).values():
            assert 0 <= value <= sum(path.probability for path in paths) <= 1


def test_the_order_of_views_and_a_factor_on_all_weights_change_no_answer():
    scores = [path_scores(paths, ANSWERS) for paths in VIEWS.values()]
    one = decide(scores, (0.4, 0.4, 0.2), ANSWERS)
    assert decide(scores[::-1], (0.2, 0.4, 0.4), ANSWERS)[1] == pytest.approx(one[1])
    assert decide(scores, (4, 4, 2), ANSWERS)[0] == one[0]


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_a_path_below_the_threshold_changes_nothing(mode):
    paths = VIEWS["bottom-up"]
    faint = [*paths, Path(0.0009, "no", 1.0), Path(0.0009, None)]
    assert path_scores(faint, ANSWERS, mode=mode) == path_scores(paths, ANSWERS, mode=mode)
    assert path_scores([Path(0.001, "no", 1.0)], ANSWERS)["no"] == 0.001


def test_one_view_alone_decides_when_the_others_weigh_nothing():
    scores = [path_scores(paths, ANSWERS) for paths in VIEWS.values()]
    assert decide(scores, (1, 0, 0), ANSWERS)[0] == decide(scores[:1], (1,), ANSWERS)[0] == "no"


def test_a_tie_is_the_last_choice_and_nothing_to_add_up_is_no_answer():
    assert decide([{"yes": 0.2, "no": 0.2}], (1,), ANSWERS)[0] == "no"
    assert decide([{"yes": 0.0, "no": 0.0}], (1,), ANSWERS)[0] is None


def test_certainty_is_0_for_a_tie_and_below_1_for_anything():
    logits = torch.tensor([[[2.0, 2.0, -1.0], [0.5, 0.0, -9.0], [30.0, 0.0, 0.0]]])
    tie, some, confident = confidence(logits)[2][0].tolist()
    assert tie == 0
    assert some == pytest.approx(0.244886, abs=1e-4)  # tanh(1/4), but for the third token
    assert 0.999 < confident <= 1


# -- answers in a text ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["There", "There is", "There is no", "There is no dog"], ("no", 2)),
        (["Yes", "Yes,", "Yes, no"], ("yes", 0)),
        (["No", "Not", "Nothing"], (None, 0)),
        (["The", "The answer", "The answer is", "The answer is ye", "The answer is yes"], ("yes", 3)),
        ([], (None, 0)),
    ],
)
def test_the_first_word_that_stands_alone_and_the_token_in_which_it_begins(pieces, expected):
    assert find_answer(pieces, ANSWERS) == expected


def test_the_first_token_is_forced_once_and_in_every_branch():
    force = Forced([[2], [0]])
    out = force(torch.zeros(4, 5).long(), torch.zeros(4, 3))
    assert out.argmax(1).tolist() == [2, 0, 2, 0]
    assert out.isfinite().sum(1).tolist() == [1, 1, 1, 1]
    later = torch.randn(4, 3)
    assert torch.equal(force(torch.zeros(4, 6).long(), later), later)


# -- on the shipped model ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded", device="cpu")


@pytest.fixture(scope="module")
def images():
    return [scene("test", index).image for index in range(2)]


def call(lvlm):
    return Call(lvlm, [], [], None, {"do_sample": False, "max_new_tokens": 8})


def test_one_path_of_one_view_is_the_plain_answer_beside_that_caption(lvlm, images):
    bound = call(lvlm)
    method = MVP(paths=1, weights=(0, 0, 1), temperature=0.0, caption_tokens=24)
    captions = method.captions(bound, images, DETAIL_PROMPT, [0, 1])
    requests = [mvp.PROMPT.format(caption=caption, question=QUESTION.lower()) for caption in captions]
    beside = [find_answer([reply.text], ANSWERS)[0] for reply in lvlm.answer(images, requests)]
    assert None not in beside
    found = lvlm.answer(images, QUESTION, decoders=[method])
    assert [answer.text.lower() for answer in found] == beside


def test_paths_are_the_likeliest_first_tokens_and_a_direct_answer_is_as_sure_as_the_first_distribution(lvlm, images):
    bound = call(lvlm)
    inputs = bound.inputs(images[:1], [QUESTION])
    (paths,) = MVP(paths=3, path_tokens=8).follow(bound, inputs, [0])
    first = bound.generate(inputs, [0], return_logits=True, max_new_tokens=1).logits[0, 0].softmax(0)
    assert [path.probability for path in paths] == pytest.approx(first.topk(3).values.tolist())
    margin = first.topk(2).values
    direct = [path for path in paths if path.direct]
    assert direct
    for path in direct:
        assert path.certainty == pytest.approx(float(margin[0] - margin[1]), abs=1e-6)
    assert all(0 <= path.certainty < 1 for path in paths)


def test_a_path_is_as_sure_as_the_distribution_in_which_its_answer_stands(lvlm, images):
    """ "A" is forced, and the word that comes next is called an answer: it stands in the second distribution."""
    bound = call(lvlm)
    inputs = bound.inputs(images[:1], [QUESTION])
    first = lvlm.processor.tokenizer.encode(" A", add_special_tokens=False)[0]
    after = {**inputs, "input_ids": torch.cat([inputs["input_ids"], torch.tensor([[first]])], 1)}
    after["attention_mask"] = torch.ones_like(after["input_ids"])
    best = bound.generate(after, [0], return_logits=True, max_new_tokens=1).logits[0, 0].softmax(0).topk(2)
    second = lvlm.processor.tokenizer.decode(best.indices[:1]).strip()
    method = MVP(choices=(second, "nothing of the kind"), path_tokens=1)
    ((answer, certainty),) = method.continued(bound, inputs, torch.tensor([first]), [0])
    assert answer == second
    assert certainty == pytest.approx(float(best.values[0] - best.values[1]), abs=1e-5)


def test_answers_do_not_depend_on_the_batch_and_say_how_they_came_about(lvlm, images):
    together = lvlm.answer(images, QUESTION, decoders=[MVP(**QUICK)], seed=3)
    alone = lvlm.answer(images[1], QUESTION, decoders=[MVP(**QUICK)], seed=4)
    assert alone[0].text == together[1].text
    assert alone[0].acted["mvp"] == pytest.approx(together[1].acted["mvp"], abs=1e-4)
    for answer in together:
        report = answer.acted["mvp"]
        assert (report["steps"], report["acted"]) == (1, 1)
        assert answer.text.lower() == max(ANSWERS[::-1], key=report.get)
        assert report["yes"] + report["no"] <= 1
        assert answer.settings["decoders"] == [repr(MVP(**QUICK))]
        assert answer.settings["generation"]["seed"] in (3, 4)


def test_decoders_behind_it_act_in_its_calls(lvlm, images):
    method = MVP(paths=1, weights=(0, 0, 1), caption_tokens=4, path_tokens=2)
    plain, mixed = (lvlm.answer(images[0], QUESTION, decoders=d) for d in ([method], [method, "vsv:strength=0.5"]))
    assert plain[0].acted["mvp"]["no"] != mixed[0].acted["mvp"]["no"]
    assert len(mixed[0].settings["decoders"]) == 2


def test_a_question_that_no_path_answers_gets_the_plain_answer(lvlm, images):
    method = MVP(paths=1, caption_tokens=4, path_tokens=2, choices=("aye", "nay"))
    plain, found = (lvlm.answer(images[0], QUESTION, decoders=d)[0] for d in ([], [method]))
    assert found.text == plain.text
    assert found.acted["mvp"]["acted"] == 0


# -- settings ------------------------------------------------------------------------------------------------------
def test_the_defaults_are_the_released_scripts_and_official_scores_as_it_does():
    default = MVP()
    assert (default.paths, default.threshold, default.weights) == (3, 0.001, (0.4, 0.4, 0.2))
    assert (default.caption_tokens, default.temperature, default.top_p, default.path_tokens) == (512, 0.7, 0.95, 50)
    assert (default.mode, MVP.official().mode) == ("paper", "official")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": 0}, "paths=0 is below 1"),
        ({"threshold": 2}, "threshold=2 is outside 0 to 1"),
        ({"weights": (1, 1)}, "are 2; there are 3 captions"),
        ({"weights": (0, 0, 0)}, "all 0"),
        ({"weights": (1, -1, 1)}, "weights=-1 is below 0"),
        ({"choices": ("yes", "Yes")}, "not two different answers"),
        ({"mode": "code"}, "mode='code' is none of 'paper', 'official'"),
        ({"path_tokens": 0}, "path_tokens=0 is below 1"),
        ({"path_tokens": 1.5}, "path_tokens=1.5 is no whole number"),
        ({"caption_tokens": 1.5}, "caption_tokens=1.5 is no whole number"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MVP(**options)


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("Describe this.", {}, "closed questions, which have a question mark; found 'Describe this.'"),
        (QUESTION, {"num_beams": 2}, "use num_beams=1"),
        (QUESTION, {"detectors": ["entropy"]}, "leave the detectors out"),
    ],
)
def test_what_it_cannot_do_is_said_before_the_first_call(lvlm, images, monkeypatch, question, options, message):
    monkeypatch.setattr(lvlm.model, "generate", None)
    with pytest.raises(ValueError, match=message):
        lvlm.answer(images, question, decoders=["mvp"], **options)
