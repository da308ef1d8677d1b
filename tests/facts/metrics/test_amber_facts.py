"""AMBER by hand, and on the public annotations where they are."""

import json
import sys
from types import SimpleNamespace

import pytest

from veridical.metrics import amber
from veridical.metrics.amber import Amber, AnswerCounts, GenerativeCounts, amber_score, official_score
from veridical.metrics.amber_score import official_discriminative, official_generative

WORDS = {"forest": ["tree"], "tree": ["forest"], "person": ["man"], "dog": [], "sofa": [], "couch": [], "cat": []}
ITEMS = [
    {"id": 1, "type": "generative", "truth": ["forest", "tree", "person", "sofa"], "hallu": ["dog", "cat"]},
    {"id": 2, "type": "generative", "truth": ["dog", "dog"], "hallu": ["person"]},
    {"id": 3, "type": "discriminative-attribute-number", "truth": "yes"},
    {"id": 4, "type": "discriminative-attribute-state", "truth": "no"},
    {"id": 5, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 6, "type": "relation", "truth": "yes"},
]


@pytest.fixture
def nltk_data(test_data, monkeypatch):
    nltk = pytest.importorskip("nltk")
    folder = test_data / "nltk_data"
    if not folder.is_dir():
        pytest.skip(f"no NLTK data at {folder}; set VERIDICAL_TEST_DATA")
    monkeypatch.setattr(nltk.data, "path", [str(folder), *nltk.data.path])


@pytest.fixture
def folder(tmp_path):
    """A small AMBER: two images, four questions."""
    (tmp_path / "annotations.json").write_text(json.dumps(ITEMS))
    (tmp_path / "relation.json").write_text(json.dumps(WORDS))
    (tmp_path / "safe_words.txt").write_text("orange\nman")
    rows = [{"id": n, "image": f"AMBER_{image}.jpg", "query": "?"} for n, image in enumerate((1, 2, 1, 1, 2, 2), 1)]
    (tmp_path / "query_generative.json").write_text(json.dumps(rows[:2]))
    (tmp_path / "query_discriminative.json").write_text(json.dumps(rows[2:]))
    return tmp_path


# The official program's arithmetic


def test_one_bad_noun_of_three_gives_chair_33_3():
    assert official_generative(GenerativeCounts(1, 1, 3, 1, 4, 2, 5, 0))["chair"] == 33.3


def test_one_clean_description_has_hal_0_1_because_denominators_start_at_0_001():
    assert official_generative(GenerativeCounts(1, 0, 3, 0, 4, 2, 5, 0))["hal"] == 0.1


def test_four_questions_three_right_one_no_two_truths_no():
    found = official_discriminative(AnswerCounts(4, 3, 1, 2, 1, 0))
    assert found == {"accuracy": 75.0, "precision": 99.9, "recall": 50.0, "f1": 66.6}


def test_f1_of_existence_adds_a_larger_constant():
    counts = AnswerCounts(10, 5, 5, 10, 5, 0)
    assert official_discriminative(counts)["f1"] == 66.7
    assert official_discriminative(counts, "existence")["f1"] == 66.6


def test_attribute_adds_the_starts_of_its_three_counters():
    counts = AnswerCounts(questions=4, correct=3, no=1, truth_no=2, correct_no=1, unparsed=0)
    figures = official_discriminative(counts, "attribute")
    assert figures == {"accuracy": 74.9, "precision": 99.7, "recall": 49.9, "f1": 66.5}


def test_nothing_measured_is_zero_and_no_error():
    assert official_discriminative(AnswerCounts(0, 0, 0, 0, 0, 0)) == {
        "accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("chair", "f1", "score"),
    [(8.40, 74.60, 83.10), (7.60, 75.90, 84.15), (6.70, 78.60, 85.95), (7.95, 71.10, 81.58), (6.25, 75.45, 84.60)],
)
def test_the_amber_score_is_that_of_published_tables(chair, f1, score):
    assert official_score({"chair": chair}, {"f1": f1}) == pytest.approx(score, abs=0.006)


# Which noun counts as what


def described(folder, text, number=1, similarity="exact"):
    return Amber(folder, similarity).describe(number, text)


def test_true_objects_and_their_associates_are_fine_and_repeats_count(nltk_data, folder):
    found = described(folder, "There is a forest. There is a dog and a dog.")
    assert found.nouns == ["forest", "dog", "dog"]
    assert found.hallucinated == [False, True, True]
    assert found.counts == GenerativeCounts(1, 1, 3, 2, 4, 1, 2, 1)


def test_an_associate_covers_its_object_even_where_it_is_true_itself(nltk_data, folder):
    only_tree = described(folder, "There is a tree.")
    assert only_tree.counts.covered == 1
    both = described(folder, "There is a tree near a forest.")
    assert both.counts.covered == 2  # "tree" covers forest, "forest" covers tree


def test_an_object_listed_twice_is_covered_once(nltk_data, folder):
    assert described(folder, "A dog sits near a dog.", 2).counts.covered == 1


def test_a_safe_word_is_fine_but_covers_nothing(nltk_data, folder):
    found = described(folder, "There is a man.")  # an associate of person, and safe here
    assert found.nouns == ["man"]
    assert found.hallucinated == [False]
    assert found.counts.covered == 0


def test_words_outside_the_vocabulary_do_not_count(nltk_data, folder):
    assert described(folder, "There is a zeppelin over the river.").nouns == []


def test_plurals_count_as_their_singular_but_other_parts_of_speech_do_not(nltk_data, folder):
    assert described(folder, "Two dogs sit here.").nouns == ["dog"]
    assert described(folder, "They dog him.").nouns == []


def test_capitalised_plurals_slip_through_as_officially(nltk_data, folder):
    assert described(folder, "Dogs.").nouns == []


def test_a_similar_word_rescues_and_covers(nltk_data, folder):
    assert described(folder, "The couch is red.").hallucinated == [True]
    rescued = described(folder, "The couch is red.", similarity="wordnet")
    assert (rescued.hallucinated, rescued.counts.covered) == ([False], 1)


def test_a_word_of_the_hallu_list_can_still_be_rescued_and_stays_marked(nltk_data, folder):
    def related(a, b):
        return 0.81 if {a, b} == {"dog", "person"} else float(a == b)

    found = described(folder, "There is a dog.", similarity=related)
    assert found.hallucinated == [False]
    assert (found.counts.fallen_for, found.counts.covered) == (1, 1)


def test_exactly_0_8_is_not_similar(nltk_data, folder):
    found = described(folder, "There is a dog.", similarity=lambda a, b: 0.8 if a != b else 1.0)
    assert found.hallucinated == [True]


def test_wordnet_takes_synonyms_by_their_most_common_sense_only(nltk_data):
    assert amber.same_sense("couch", "sofa") == amber.same_sense("dog", "dog") == 1
    assert amber.same_sense("bread", "cabbage") == 0  # both are money, in a rare sense
    assert amber.same_sense("dog", "cat") == 0


def test_spacy_is_asked_where_it_is_installed_and_explained_where_not(monkeypatch):
    amber._spacy.cache_clear()
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(LookupError, match=r"pip install spacy.*en_core_web_lg.*similarity='wordnet'"):
        amber.spacy_vectors("dog", "cat")
    vectors = SimpleNamespace(load=lambda name: lambda word: SimpleNamespace(similarity=lambda other: 0.801))
    monkeypatch.setitem(sys.modules, "spacy", vectors)
    assert amber.spacy_vectors("dog", "cat") == 0.801
    amber._spacy.cache_clear()


# Scores with intervals


def test_generative_figures_sum_counts_over_descriptions(nltk_data, folder):
    score = Amber(folder, "exact").generative({1: "There is a forest and a dog.", 2: ""})
    assert score.counts == GenerativeCounts(2, 1, 2, 1, 6, 1, 3, 1)
    assert score.figures() == pytest.approx({"chair": 0.5, "cover": 1 / 6, "hal": 0.5, "cog": 1 / 3})
    assert score.similarity == "exact"
    estimates = score.estimates(samples=50)
    assert estimates["hal"].n == 2
    assert estimates["hal"].low <= 0.5 <= estimates["hal"].high


def test_no_is_the_positive_class(folder):
    score = Amber(folder).discriminative({3: "Yes", 4: "No", 5: "Yes", 6: "No"})
    assert score.counts() == AnswerCounts(4, 2, 2, 2, 1, 0)
    figures = score.figures()
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.5, 0.5, 0.5)


def test_dimensions_are_scored_apart_and_relation_has_two_type_names(folder):
    score = Amber(folder).discriminative({3: "Yes", 4: "No", 5: "Yes", 6: "No"})
    assert score.figures("attribute")["accuracy"] == 1
    assert score.figures("number")["accuracy"] == 1
    assert score.figures("existence")["accuracy"] == 0
    assert score.figures("relation")["accuracy"] == 0
    with pytest.raises(ValueError, match="no answers of dimension 'colour'; AMBER has existence, attribute"):
        score.figures("colour")
    assert amber.DIMENSIONS["relation"] == amber.DIMENSIONS["discriminative-relation"]


@pytest.mark.parametrize("answer", ["yes", "Yes.", "NO", "Yes, there is", ""])
def test_anything_but_the_two_words_is_wrong_and_counted(folder, answer):
    score = Amber(folder).discriminative({3: answer, 4: answer})
    assert score.counts() == AnswerCounts(2, 0, 0, 1, 0, 2)


def test_the_strict_protocol_reads_words(folder):
    score = Amber(folder).discriminative({3: "yes.", 4: "No, it is not.", 5: "maybe"}, protocol="strict")
    assert score.counts() == AnswerCounts(3, 2, 1, 2, 1, 1)
    with pytest.raises(ValueError, match="no AMBER protocol 'loose'"):
        Amber(folder).discriminative({3: "Yes"}, protocol="loose")


def test_questions_are_resampled_by_image(folder):
    score = Amber(folder).discriminative({3: "Yes", 4: "No", 5: "Yes", 6: "No"})
    assert score.estimates(samples=20)["accuracy"].n == 2
    assert score.units()[:, 1].tolist() == [2, 0]


def test_the_score_joins_both_tasks_image_by_image(nltk_data, folder):
    amber_ = Amber(folder, "exact")
    generative = amber_.generative({1: "There is a forest and a dog."})
    discriminative = amber_.discriminative({3: "Yes", 4: "No", 5: "No", 6: "Yes"})
    found = amber_score(generative, discriminative, samples=50)
    assert found.value == pytest.approx((1 - 0.5 + 1) / 2)
    assert found.n == 2
    silent = amber_.generative({1: "Nothing."})
    assert amber_score(silent, discriminative).n == 0


# Errors


def test_missing_files_say_what_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no annotations.json in .*the data folder of AMBER's repository"):
        Amber(tmp_path)


def test_a_torn_file_says_its_line(folder):
    (folder / "relation.json").write_text('{"a": [],\n "b" []}')
    with pytest.raises(ValueError, match=r"relation.json: line 2 is not JSON"):
        Amber(folder)


def test_the_official_layout_is_found(folder):
    (folder / "data" / "query").mkdir(parents=True)
    for path in folder.glob("*.*"):
        path.rename(folder / "data" / ("query" if path.name.startswith("query") else "") / path.name)
    assert Amber(folder).queries[3]["image"] == "AMBER_1.jpg"


def test_wrong_ids_types_and_names_are_refused(folder):
    with pytest.raises(ValueError, match=r"id 1 is no question of .*; those are 3 to 6, as numbers"):
        Amber(folder).discriminative({1: "Yes"})
    with pytest.raises(ValueError, match="id '3' is no question"):
        Amber(folder).discriminative({"3": "Yes"})
    with pytest.raises(ValueError, match="no answers to score"):
        Amber(folder).discriminative({})
    with pytest.raises(TypeError, match="found NoneType"):
        Amber(folder).discriminative({3: None})
    with pytest.raises(ValueError, match=r"no similarity 'cosine'. Known: wordnet, exact, spacy"):
        Amber(folder, "cosine")


# The public data


@pytest.fixture
def public(test_data):
    if not (test_data / "amber").is_dir():
        pytest.skip(f"no AMBER data in {test_data}; set VERIDICAL_TEST_DATA")
    return Amber(test_data / "amber")


def test_the_public_files_hold_what_the_notes_say(public):
    assert len(public.items) == len(public.queries) == 15220
    assert len(public.relations) == 340
    assert len(public.safe) == 9
    everything_no = public.discriminative(dict.fromkeys(range(1005, 15221), "No"))
    sizes = {name: everything_no.counts(name).questions for name in ("existence", "state", "number", "action")}
    assert sizes == {"existence": 4924, "state": 4764, "number": 2072, "action": 792}
    relation = everything_no.counts("relation")
    assert (relation.questions, relation.truth_no) == (1664, 689)


def test_existence_precision_is_100_whenever_no_is_said(public):
    answers = dict.fromkeys(range(1005, 15221), "Yes")
    number = next(n for n in answers if public.items[n]["type"] == "discriminative-hallucination")
    score = public.discriminative({**answers, number: "No"})
    assert score.figures("existence")["precision"] == 1
    assert score.figures("existence")["recall"] == pytest.approx(1 / 4924)


def test_half_of_the_attribute_questions_have_the_truth_no(public):
    constant = public.discriminative(dict.fromkeys(range(1005, 15221), "No"))
    for name in ("state", "number", "action"):
        assert constant.figures(name)["accuracy"] == 0.5
    assert constant.official("existence") == {"accuracy": 100.0, "precision": 100.0, "recall": 100.0, "f1": 100.0}


def test_a_description_of_the_first_image(public, nltk_data):
    text = "A man stands on the grass by a lake. There is a dog, and a bird in the sky. An orange lies on a path."
    found = public.describe(1, text)
    wrong = {noun for noun, bad in zip(found.nouns, found.hallucinated, strict=True) if bad}
    assert wrong == {"dog", "bird"}
    assert "man" in found.nouns  # an associate of person
    assert (found.counts.fallen_for, found.counts.expected, found.counts.truth) == (2, 5, 7)


def test_naming_every_true_object_covers_nearly_all_and_invents_nothing(public, nltk_data):
    texts = {n: " ".join(f"There is a {word}." for word in public.items[n]["truth"]) for n in range(1, 101)}
    figures = public.generative(texts).figures()
    assert figures["chair"] == figures["hal"] == 0
    assert figures["cover"] > 0.85
