"""CHAIR against the facts and quirks of the official programs, and its figures by hand.

Tests of the wordnet and pattern families need public data (synonyms and NLTK's data) and skip without it.
"""

import subprocess
import sys

import pytest

from veridical.metrics.chair import Chair, truncate_last_sentence
from veridical.metrics.chair_words import DOUBLE_WORDS, locate
from veridical.metrics.estimate import Estimate
from veridical.metrics.pattern_singular import singular

CAT = "A black cat sleeps on two wooden chairs near a sofa."
KID = "The kid eats a hot dog while a puppy begs."


# The table of facts: caption, objects by wordnet, objects by pattern

FACTS = [
    (CAT, "cat, chair, couch", "cat, chair, couch"),
    (KID, "person, hot dog, dog", "person, hot dog, dog"),
    ("An adult giraffe and a baby giraffe share one umbrella.", "giraffe, giraffe, umbrella", None),
    ("A passenger jet waits behind a passenger bus.", "airplane, person, bus", "airplane, person"),
    ("He left his seat and closed the toilet.", "toilet", "toilet"),
    ("The kettle sits on the stove top oven.", "oven, oven", "oven, oven"),
    ("Skiers were skiing past a bench.", "person, skis, bench", "person, bench"),
    ("A bus passes.", "bus", ""),
    ("Two buses pass.", "bus", "bus"),
    ("Her ties are red.", "tie", ""),
    ("She is seated on a bench.", "chair, bench", "bench"),
    ("A motor bike leans on a fence.", "", ""),
    ("doughnuts, donuts, bagels, pancakes and cheesecakes", "donut, donut, donut, cake", None),
]


def listed(text):
    return text.split(", ") if text else []


@pytest.mark.parametrize(("caption", "by_wordnet", "by_pattern"), FACTS)
def test_objects_are_those_of_the_official_programs(wordnet, pattern, caption, by_wordnet, by_pattern):
    assert wordnet.parse(caption).objects == listed(by_wordnet)
    if by_pattern is not None:
        assert pattern.parse(caption).objects == listed(by_pattern)


def test_indices_are_start_positions_before_double_words_are_joined(wordnet):
    cat, kid = wordnet.parse(CAT), wordnet.parse(KID)
    assert (cat.indices, len(cat.tokens)) == ([2, 7, 10], 12)
    assert (kid.indices, len(kid.tokens)) == ([1, 4, 8], 10)
    assert kid.words == ["kid", "hot dog", "puppy"]


def test_a_dropped_seat_shifts_the_official_index_but_not_the_position(wordnet):
    mentions = wordnet.parse("He left his seat and closed the toilet.")
    assert mentions.indices == [6]
    assert mentions.positions == [7]
    assert len(mentions.tokens) == 9
    assert "seat" in mentions.tokens


def test_spans_mark_the_words_in_the_caption_as_written(wordnet):
    for caption in (KID, 'He said: "A  Hot Dog" isn\'t a PUPPY', "A man's dog—the puppy—and İstanbul's cats"):
        mentions = wordnet.parse(caption)
        marked = [caption[start:end].lower() for start, end in mentions.spans]
        assert [" ".join(words.split()) for words in marked] == [
            {"cat": "cats"}.get(word, word) for word in mentions.words
        ]


def test_quotation_marks_are_located_though_nltk_rewrites_them():
    assert locate(["``", "dog", "''"], 'a "dog"') == [(2, 3), (3, 6), (6, 7)]
    assert locate(["``", "dog", "''"], "a ''dog''") == [(2, 4), (4, 7), (7, 9)]


# Quirks of both families


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("A passenger plane lands.", "person, airplane"),
        ("The passengers wait.", "person"),
        ("A baby goat stands there.", "person, sheep"),
        ("A baby lamb stands there.", "person, sheep"),
        ("The wall is orange.", "orange"),
        ("She has a bow in her hair.", "tie"),
        ("A mouse nibbles on cheese.", "mouse"),
        ("Some toilet paper hangs there.", "toilet"),
        ("A toilet seat leans there.", "toilet"),
        ("There is no cat here.", "cat"),
        ("He wears a bow tie.", "tie"),
        ("A passenger train stops.", "train"),
        ("A baby elephant and an adult cow.", "elephant, cow"),
        ("A traffic light and a stop sign.", "traffic light, stop sign"),
        ("A street light glows.", "traffic light"),
        ("A teddy bear lies there.", "teddy bear"),
        ("Two wine glasses stand there.", "wine glass"),
        ("An air plane flies.", "airplane"),
        ("A tennis racket lies there.", "tennis racket"),
        ("A cat eats a hot-dog.", "cat"),
        ("A cat/dog thing.", ""),
        ("A dog.A cat.", "cat"),
        ("A dog… and more.", ""),
        ("A\u00a0dog\u00a0barks.", "dog"),
        ("He eats a hotdog.", ""),
        ("A hair dryer, a plant, a plate and a box.", ""),
        ("She eats cheesecake.", ""),
        ("She holds an iPhone.", ""),
        ("The dog's bowl.", "dog, bowl"),
        ("Hot, dog.", "dog"),
        ("", ""),
        ("...", ""),
    ],
)
def test_quirks_of_both_families(wordnet, pattern, caption, objects):
    assert wordnet.parse(caption).objects == listed(objects)
    assert pattern.parse(caption).objects == listed(objects)


def test_every_seat_vanishes_where_a_toilet_is_mentioned(wordnet, pattern):
    for chair in (wordnet, pattern):
        assert chair.parse("A seat, a toilet, a seat.").objects == ["toilet"]
        assert chair.parse("A seat, a urinal, a seat.").objects == ["chair", "toilet", "chair"]
        assert chair.parse("A stool and a toilet.").objects == ["chair", "toilet"]


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("A minibus and an airbus.", ""),
        ("A minivan and a bus.", "car"),
        ("Tennis players hold a racket.", "person, tennis racket"),
        ("Many people.", "person"),
        ("The police came.", ""),
        ("Four men.", "person"),
        ("A pair of skis.", "skis"),
        ("Scissors and knives.", "scissors, knife"),
        ("Children ride horses and geese.", "person, horse, bird"),
        ("Seated people are skiing.", "person"),
    ],
)
def test_quirks_of_the_pattern_family(pattern, caption, objects):
    assert pattern.parse(caption).objects == listed(objects)


def test_pattern_makes_a_bu_of_a_bus_and_a_fmy_of_four():
    words = ("bus", "ties", "tennis", "people", "police", "four", "glass", "cookies", "skis", "leaves", "s", "news")
    forms = ["bu", "ty", "tenni", "person", "polouse", "fmy", "glas", "cookies", "ski", "leaf", "s", "news"]
    assert [singular(word) for word in words] == forms


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("She is seating guests.", "chair"),
        ("They are biking home.", "bicycle"),
        ("The boat is tied up.", "boat, tie"),
        ("People go kayaking and canoeing.", "person, boat, boat"),
        ("He is snowboarding.", "snowboard"),
        ("He is skateboarding.", "skateboard"),
        ("The ship is sinking.", "boat, sink"),
        ("They are monitoring it.", "tv"),
        ("She is grooming it.", "person"),
        ("He was ducking under it.", "bird"),
        ("The plane is taxiing.", "airplane, car"),
        ("They are boating.", "boat"),
        ("She is bearing fruit.", "bear"),
        ("He is bowling.", "bowl"),
    ],
)
def test_verbs_become_objects_in_the_wordnet_family(wordnet, caption, objects):
    assert wordnet.parse(caption).objects == listed(objects)


def test_the_tag_decides_whether_a_word_fires(wordnet):
    assert wordnet.parse("A potted plant.").objects == ["potted plant"]
    assert wordnet.parse("He potted plants.").objects == []


def test_the_official_synonyms_are_eighty_rows_and_403_terms(wordnet):
    assert len(wordnet.categories) == 80
    assert len(wordnet.terms) == 403
    assert wordnet.family == "wordnet"


def test_double_words_are_replaced_in_one_pass_from_the_left(wordnet):
    assert wordnet.parse("A toilet seat bow tie.").tokens == ["a", "toilet", "tie", "."]
    assert wordnet.parse("The train track home plate.").objects == []
    assert DOUBLE_WORDS["baby cub"] == "cub"
    assert DOUBLE_WORDS["stove top oven"] == "stove top oven"


def test_five_hundred_long_captions_take_seconds(wordnet):
    import time

    wordnet.parse(CAT)
    start = time.process_time()
    for number in range(500):
        wordnet.parse(f"{number} " + " ".join([CAT, KID] * 4))
    assert time.process_time() - start < 10


# Figures


def test_two_captions_by_hand(wordnet):
    truth = {1: {"person", "hot dog"}, 2: {"cat", "chair", "couch", "bed"}}
    first = wordnet.score({1: KID}, truth)
    assert first.chair_i == pytest.approx(1 / 3)
    both = wordnet.score({1: KID, 2: CAT}, truth)
    assert both.chair_s == 0.5
    assert both.chair_i == pytest.approx(1 / 6)
    assert both.recall == pytest.approx(5 / 6)
    assert both.precision == pytest.approx(5 / 6)
    assert both.f1 == pytest.approx(5 / 6)
    assert both.length == 11
    assert both.mentions == 3
    assert both.per_caption[1].hallucinated_words == [("puppy", "dog", 8)]
    assert both.per_caption[2].chair_i == 0
    assert both.to_dict()["family"] == "wordnet"


@pytest.fixture
def chair():
    return Chair()


def test_the_embedded_vocabulary_lists_its_plurals_and_needs_no_nltk(chair):
    assert chair.family == "exact"
    mentions = chair.parse("Two dogs, a cat and a traffic light.")
    assert mentions.objects == ["dog", "cat", "traffic light"]
    assert mentions.words == ["dogs", "cat", "traffic light"]
    assert mentions.indices == [1, 4, 7]
    assert mentions.tokens == ["two", "dogs", ",", "a", "cat", "and", "a", "traffic light", "."]


def test_the_longest_phrase_wins_and_punctuation_parts_phrases(tmp_path):
    (tmp_path / "terms.txt").write_text("dog, dogs\nhot dog\nfood, hot dog stand\n")
    chair = Chair(tmp_path / "terms.txt", family="exact")
    assert chair.parse("A hot dog stand sells a hot dog to a dog.").objects == ["food", "hot dog", "dog"]
    assert chair.parse("It is hot, dog!").objects == ["dog"]


def test_every_occurrence_of_a_word_counts(chair):
    r = chair.score({1: "A dog, a dog and a cat."}, {1: {"cat"}})
    assert r.chair_i == pytest.approx(2 / 3)
    assert r.precision == 0.5
    assert r.recall == 1
    assert r.repetition == 1


def test_captions_without_objects_count_in_chair_s_but_not_in_chair_i(chair):
    r = chair.score({1: "A dog.", 2: "", 3: "Nothing."}, {1: set(), 2: {"cat"}, 3: set()})
    assert r.chair_s == pytest.approx(1 / 3)
    assert r.chair_i == 1
    assert r.recall == 0
    assert r.per_caption[2].chair_i == 0
    assert r.n == 3


def test_no_mention_at_all_is_zero_with_n_zero(chair):
    r = chair.score({1: "Nothing."}, {1: set()})
    assert (r.chair_s, r.chair_i, r.recall, r.precision, r.f1) == (0, 0, 0, 0, 0)
    assert r.estimates()["chair_i"] == Estimate(0.0, 0.0, 1.0, 0)
    assert r.estimates()["recall"].n == 0
    assert r.estimates()["chair_s"].n == 1


def test_estimates_agree_with_the_figures_and_enclose_them(chair):
    captions = {image: "A dog and a cat." if image % 3 else "A horse." for image in range(60)}
    r = chair.score(captions, {image: {"dog", "horse"} if image % 2 else {"dog"} for image in captions})
    estimates = r.estimates()
    assert estimates.keys() == r.to_dict().keys() - {"family", "n"}
    for name, estimate in estimates.items():
        assert estimate.value == pytest.approx(getattr(r, name))
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == 60


def test_order_of_the_captions_does_not_matter_to_the_figures(chair):
    captions = {1: "A dog.", 2: "A cat and a horse."}
    truth = {1: {"dog"}, 2: {"horse"}}
    assert chair.score(captions, truth).to_dict() == chair.score(dict(reversed(captions.items())), truth).to_dict()


def test_the_halves_split_at_the_middle_word(chair):
    r = chair.score({1: "A dog runs here. Behind stands a cat ."}, {1: {"dog"}})
    first, second = r.first_half_second_half()
    assert (first.value, second.value) == (0, 1)
    assert chair.score({1: "Cat stands here with dog"}, {1: {"dog"}}).first_half_second_half()[0].value == 1


def test_a_difference_is_paired_by_image_and_refuses_other_images(chair):
    truth = {image: {"dog"} for image in range(40)}
    good = chair.score(dict.fromkeys(truth, "A dog."), truth)
    bad = chair.score({image: "A cat." if image % 2 else "A dog." for image in truth}, truth)
    assert good.difference(good)["chair_s"].estimate == Estimate(0.0, 0.0, 0.0, 40)
    difference = good.difference(bad)["chair_s"].estimate
    assert difference.value == -0.5
    assert difference.high < 0
    with pytest.raises(ValueError, match="40 and 1 images with 1 in common"):
        good.difference(chair.score({1: "A dog."}, truth))


def test_repeated_tells_whether_a_category_is_named_twice(chair):
    assert chair.repeated("A dog beside a puppy.")
    assert not chair.repeated("A dog beside a cat.")


# Truncated captions


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("A dog sits. A cat", "A dog sits."),
        ("A dog sits. A cat.", "A dog sits. A cat."),
        ("Is it a dog? It may", "Is it a dog?"),
        ('He says "dog." And then', 'He says "dog."'),
        ("It is 3.5 m long. The second is 2.5", "It is 3.5 m long."),
        ("A dog that never", "A dog that never"),
        ("", ""),
    ],
)
def test_the_last_sentence_goes_if_it_was_cut_off(caption, kept):
    assert truncate_last_sentence(caption) == kept


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("A dog sits. A cat", "A dog sits."),
        ("A dog sits. A cat!", "A dog sits."),
        ("It is long. The second is 2.5", "It is long. The second is 2."),
        ("A dog that never", ""),
    ],
)
def test_operas_program_cuts_at_the_last_full_stop(caption, kept):
    assert truncate_last_sentence(caption, at_full_stop=True) == kept


# Wrong input


def test_no_captions_and_captions_that_are_no_strings_are_refused(chair):
    with pytest.raises(ValueError, match="no captions to score"):
        chair.score({}, {7: {"dog"}})
    with pytest.raises(TypeError, match="a caption is a string; found NoneType"):
        chair.score({7: None}, {7: {"dog"}})


def test_unknown_families_are_named():
    with pytest.raises(ValueError, match=r"no word family 'spacy'\. Known: exact, pattern, wordnet"):
        Chair(family="spacy")


def test_faulty_synonym_files_are_refused_with_their_lines(tmp_path):
    with pytest.raises(FileNotFoundError, match="no synonym file at"):
        Chair(tmp_path / "absent.txt")
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfdog, pup\r\ncat\r\n")
    assert Chair(tmp_path / "marked.txt").terms == {"dog": "dog", "pup": "dog", "cat": "cat"}
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="holds no terms"):
        Chair(tmp_path / "empty.txt")
    (tmp_path / "twice.txt").write_text("\ndog, pup\nseal, pup\n")
    with pytest.raises(ValueError, match="line 3 lists 'pup' under 'seal', line 2 under 'dog'"):
        Chair(tmp_path / "twice.txt")


def test_missing_nltk_data_says_how_to_get_it(tmp_path, test_data):
    program = (
        "import nltk; nltk.data.path[:] = []\n"
        "from veridical.metrics.chair import Chair\n"
        f"Chair({str(test_data / 'chair_synonyms.txt')!r}).parse('A dog.')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "LookupError: NLTK's data punkt_tab is not here" in done.stderr
    assert "`veridical data nltk`" in done.stderr
    assert "NLTK_DATA" in done.stderr


def test_metrics_import_neither_torch_nor_nltk(tmp_path):
    program = (
        "import sys, veridical.metrics.chair, veridical.metrics.pope, veridical.datasets.pope\n"
        "print([name for name in ('torch', 'nltk', 'prefect', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
