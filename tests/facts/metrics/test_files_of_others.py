"""What real files taught the scorers: captions beside annotations, other orders, coordinates, odd JSON, RePOPE."""

import json
import lzma

import pytest

from veridical.datasets.coco import coco_pope, load_json, write_coco
from veridical.flows.benchmarks.base import Source
from veridical.flows.benchmarks.pope import POPE
from veridical.flows.scoring import compare as comparing
from veridical.flows.scoring import files
from veridical.metrics import pope
from veridical.metrics.captions_file import read_answers, read_captions
from veridical.metrics.chair import Chair, ground_truth
from veridical.metrics.compare import length_matched, without_coordinates

QUESTIONS = [("dog", "yes", "a.jpg"), ("cat", "no", "a.jpg"), ("car", "yes", "b.jpg"), ("bus", "no", "b.jpg")]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def questions(tmp_path):
    rows = [{"question_id": n, "image": image, "text": f"Is there a {name} in the image?", "label": label}
            for n, (name, label, image) in enumerate(QUESTIONS, start=1)]  # fmt: skip
    (tmp_path / "asked.json").write_text(lines(*rows))
    return tmp_path / "asked.json"


def answered(path, questions, *rows, **options):
    path.write_text(lines(*rows))
    return files.answered([path], [questions], **options)


# -- POPE from a COCO folder ---------------------------------------------------------------------------------------
@pytest.fixture
def nltk_words(test_data, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data"), *nltk.data.path])


def test_what_a_reference_caption_names_is_there_in_popes_questions_too(test_data, nltk_words):
    source = Source(coco=str(test_data / "photos"), limit=100, synonyms=str(test_data / "chair_synonyms.txt"))
    content = load_json(source.files.instances)
    truth = ground_truth(content, load_json(source.files.captions), source.chair)
    wrong = {}
    for synonyms in (None, source.synonyms):
        requests = POPE().examples(Source(coco=source.coco, limit=100, synonyms=synonyms))
        negatives = [e for e in requests if e.label == "no"]
        objects = {e.id: e.question.removesuffix(" in the image?").split(" ", 3)[3] for e in negatives}
        named = [e for e in negatives if objects[e.id] in truth[e.image_id]]
        wrong[synonyms] = {(e.image_id, objects[e.id]) for e in named if "popular" in e.splits}
        assert len(negatives) > 100
    denied = {(129648, "bowl"), (255165, "dining table"), (516008, "dining table")}
    assert wrong[None] == denied, "annotations alone deny what the captions name"
    assert not wrong[source.synonyms]
    # who looks for letters instead of words finds a fourth one: a car in "carrots"
    captions = [a["caption"] for a in load_json(source.files.captions)["annotations"] if a["image_id"] == 99053]
    assert any("car" in text for text in captions)
    assert "car" not in truth[99053]
    assert POPE().protocol(source)["labels"] == "annotations and reference captions"
    assert POPE().protocol(Source(coco=source.coco))["labels"] == "annotations"
    assert "labels" not in POPE().protocol(Source())


def test_the_seed_chooses_popes_images_in_a_small_folder_too(tmp_path):
    folder = write_coco("test", 30, tmp_path / "coco")
    images = {seed: [e.image_id for e in coco_pope(folder, 6, "popular", seed)][::6] for seed in range(4)}
    assert all(len(ids) == 6 and ids == sorted(ids) for ids in images.values())
    assert len({tuple(ids) for ids in images.values()}) == 4
    more = {e.image_id for e in coco_pope(folder, 10, "popular", 1)}
    assert set(images[1]) <= more, "a larger limit keeps the images of a smaller one"
    assert images[1] == [e.image_id for e in coco_pope(folder, 6, "adversarial", 1)][::6]


# -- answers by order ----------------------------------------------------------------------------------------------
def test_answers_by_order_to_other_questions_are_refused(tmp_path, questions):
    texts = [{"prompt": f"Is there a {name} in the image? Answer with one word.", "text": label.title()}
            for name, label, _ in QUESTIONS]  # fmt: skip
    read = answered(tmp_path / "a.jsonl", questions, *texts, by_order=True)
    assert read.answers["asked"] == ["Yes", "No", "Yes", "No"]
    with pytest.raises(ValueError, match=r"line 1 answers 'Is there a dog .* prompt 'is there a bus .* another order"):
        answered(tmp_path / "a.jsonl", questions, *texts[::-1], by_order=True)
    stranger = {"prompt": "Is there a boat in the image?", "text": "No"}
    with pytest.raises(ValueError, match=r"line 2 answers .* or to another file of questions"):
        answered(tmp_path / "a.jsonl", questions, texts[0], stranger, *texts[2:], by_order=True)
    reworded = [{"question": f"Can you see any {name} here?", "answer": label} for name, label, _ in QUESTIONS]
    assert answered(tmp_path / "a.jsonl", questions, *reworded, by_order=True).answers


def test_answers_by_order_about_other_images_are_refused(tmp_path, questions):
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    questions.write_text(lines(*({**row, "image": f"COCO_val2014_{row['question_id']:012}.jpg"} for row in rows)))
    texts = [{"image": f"{n:012}.jpg", "answer": "no"} for n in (1, 2, 3, 4)]
    assert answered(tmp_path / "a.jsonl", questions, *texts, by_order=True).answers
    with pytest.raises(ValueError, match=r"line 3 answers .* image '000000000004.jpg'"):
        answered(tmp_path / "a.jsonl", questions, *texts[:2], *texts[:1:-1], by_order=True)


# -- equal length --------------------------------------------------------------------------------------------------
def test_at_equal_length_mentions_are_those_of_the_whole_caption(test_data, nltk_words):
    """Tagged as a sentence of its own, what is left of a cut caption has other lemmas at times."""
    chair = Chair(test_data / "chair_synonyms.txt")
    with lzma.open(test_data / "released" / "halc__llava-1.5_greedy_seed0.jsonl.xz", "rt") as file:
        captions = [json.loads(line)["caption"] for line in file][:150]
    whole = dict(enumerate(captions))
    half = {n: " ".join(caption.split()[: len(caption.split()) // 2]) for n, caption in whole.items()}
    first, second = length_matched(chair, whole, half, {n: set() for n in whole})
    assert first.length == second.length
    for n, caption in whole.items():
        kept = len(second.per_caption[n].mentions.tokens)
        mentions, every = first.per_caption[n].mentions, chair.parse(caption)
        assert mentions.tokens == every.tokens[:kept]
        assert mentions.objects == every.objects[: len(mentions.objects)]
        assert every.positions[len(mentions.objects) :] == [p for p in every.positions if p >= mentions.size]


def test_coordinates_are_no_words_at_equal_length_and_it_is_said():
    boxed = "A dog([0.1, 0.2, 0.5, 0.9]) and a cat ([0.1, 0.2, 0.5, 0.9];[0, .5, 1, 1.0])."
    assert without_coordinates(boxed) == "A dog and a cat."
    assert without_coordinates("A dog [1] of 3 (see 2, 3).") == "A dog [1] of 3 (see 2, 3)."
    a, b = length_matched(Chair(), {1: boxed}, {1: "A dog and a cat."}, {1: {"dog"}})
    assert a.length == b.length == 6
    assert a.chair_s == b.chair_s == 1
    systems = [comparing.System(name, "chair", name, {"": comparing.Texts(Chair(), {1: text}, {1: {"dog"}})}, {})
               for name, text in (("plain", "A dog and a cat."), ("boxed", boxed))]  # fmt: skip
    assert comparing.pair(*systems).notes == [
        "1 captions hold coordinates, which do not count as words at equal length"
    ]


def test_released_captions_with_coordinates_keep_their_words(test_data):
    with lzma.open(test_data / "released" / "halc__llava-1.5_woodpecker_seed0.jsonl.xz", "rt") as file:
        captions = [json.loads(line)["caption"] for line in file]
    plain = [without_coordinates(caption) for caption in captions]
    assert sum(a != b for a, b in zip(captions, plain, strict=True)) > 100
    assert not any("([" in caption for caption in plain)
    assert plain[0].startswith("The image captures two men walking on the beach. One of the men")


# -- odd JSON ------------------------------------------------------------------------------------------------------
CAPTIONS = [{"image_id": 1, "caption": "A dog."}, {"image_id": 2, "caption": "A cat."}]


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("\n".join(json.dumps(row, indent=2) for row in CAPTIONS) + "\n", "line 5"),
        ("".join(map(json.dumps, CAPTIONS)), "line 1"),
        (" ".join(map(json.dumps, CAPTIONS)) + "\n\n", "line 1"),
    ],
    ids=["indented objects one after the other", "two objects on a line", "two with a space between"],
)
def test_objects_one_after_the_other_are_read(tmp_path, text, second):
    (tmp_path / "a.jsonl").write_text(text)
    found = read_captions(tmp_path / "a.jsonl")
    assert found.by_id == {1: "A dog.", 2: "A cat."}
    assert found.places[2] == second


def test_beside_a_torn_line_two_objects_on_a_line_are_both_kept(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(map(json.dumps, CAPTIONS)) + '\n{"image_id": 3, "cap\n' + lines(
        {"image_id": 4, "caption": "A bus."}))  # fmt: skip
    found = read_captions(tmp_path / "a.jsonl", strict=False)
    assert list(found.by_id) == [1, 2, 4]
    assert len(found.skipped) == 1
    assert "line 2 is not JSON" in found.skipped[0]


def test_questions_may_be_indented_objects_too(tmp_path, questions):
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    (tmp_path / "indented.json").write_text("\n".join(json.dumps(row, indent=1) for row in rows))
    assert pope.read_questions(tmp_path / "indented.json") == rows


# -- RePOPE's files ------------------------------------------------------------------------------------------------
def test_repopes_file_of_questions_takes_the_answers_to_pope(test_data, tmp_path):
    changes = json.loads((test_data / "repope_changes.json").read_text())["splits"]["popular"]
    requests = pope.read_questions(test_data / "pope" / "coco_pope_popular.json")
    left = [q for q in requests if q["question_id"] not in set(changes["removed"])]
    path = tmp_path / "coco_repope_popular.json"
    path.write_text(lines(*left))
    answers = [{"question_id": q["question_id"], "answer": q["label"]} for q in requests]
    found = answered(tmp_path / "a.jsonl", path, *answers)
    assert found.answers["coco_repope_popular"] == [q["label"] for q in left]
    assert found.skipped == []
    assert found.notes[0].endswith(f"{len(changes['removed'])} answers are to questions that RePOPE removed, and are "
                                   "not scored")  # fmt: skip
    assert found.notes[0] in files.score_pope(found).notes
    with pytest.raises(ValueError, match="1 answers are to none of them, such as 3001"):
        answered(tmp_path / "a.jsonl", path, *answers, {"question_id": 3001, "answer": "no"})
    with pytest.raises(ValueError, match="have no answer"):
        answered(tmp_path / "a.jsonl", path, *answers[:-200])
    assert read_answers(tmp_path / "a.jsonl").by_id
