"""Files of captions and answers in every layout that evaluation programs write, and everything wrong with them."""

import json
import time

import pytest

from veridical.metrics.captions_file import Predictions, image_id, in_order, read_answers, read_captions

CAPTIONS = {310196: "A dog on a bench.", 42: "Two cats."}


@pytest.fixture
def write(tmp_path):
    def write(content, name="file.jsonl"):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


OPERA = [{"image_id": 310196, "caption": "A dog on a bench."}, {"image_id": 42, "caption": "Two cats."}]
LLAVA = [
    {"question_id": 0, "prompt": "Describe.", "text": "A dog on a bench.", "image": "COCO_val2014_000000310196.jpg"},
    {"question_id": 1, "prompt": "Describe.", "text": "Two cats.", "image": "val2014/COCO_val2014_000000000042.jpg"},
]
OURS = [
    {"id": "a", "image_id": "COCO_val2014_000000310196.jpg", "image": "/x/COCO_val2014_000000310196.jpg",
     "question": None, "label": None, "text": "A dog on a bench.", "error": None, "seconds": 0.1, "acted": {}},
    {"id": "b", "image_id": 42, "image": "/x/b.jpg", "question": None, "label": None, "text": "Two cats.",
     "error": None, "seconds": 0.1, "acted": {}},
]  # fmt: skip
LAYOUTS = {
    "OPERA's JSON lines": lines(*OPERA),
    "ids as text": lines(*({**row, "image_id": str(row["image_id"])} for row in OPERA)),
    "an array": json.dumps(OPERA),
    "a pretty-printed array": json.dumps(OPERA, indent=2),
    "LLaVA's JSON lines": lines(*LLAVA),
    "our rows": lines(*OURS),
    "a path and a response": lines(
        *({"question_id": n, "image_path": row["image"], "response": row["text"]} for n, row in enumerate(LLAVA))
    ),
    "an object": json.dumps({"310196": "A dog on a bench.", "42": "Two cats."}),
    "a pretty-printed object": json.dumps({"310196": "A dog on a bench.", "42": "Two cats."}, indent=1),
    "an object of file names": json.dumps({"COCO_val2014_000000310196.jpg": "A dog on a bench.", "42": "Two cats."}),
    "an object of objects": json.dumps({"310196": {"caption": "A dog on a bench."}, "42": {"caption": "Two cats."}}),
    "an object of lists": json.dumps({"310196": ["A dog on a bench."], "42": [{"caption": "Two cats."}]}),
    "pairs": json.dumps([[310196, "A dog on a bench."], [42, "Two cats."]]),
    "lines of pairs": lines([310196, "A dog on a bench."], [42, "Two cats."]),
    "CHAIR's output": json.dumps({"sentences": OPERA, "overall_metrics": {"CHAIRs": 0.5}}),
    "CHAIR's input": json.dumps({"overall": {"Bleu_1": 1}, "imgToEval": {str(r["image_id"]): r for r in OPERA}}),
    "COCO's captions": json.dumps({"images": [], "annotations": OPERA}),
    "empty lines between": lines(*OPERA).replace("\n", "\n\n"),
    "a byte order mark": "\ufeff" + lines(*OPERA),
    "Windows' line ends": lines(*OPERA).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_captions_are_read_from_every_layout(write, layout):
    found = read_captions(write(LAYOUTS[layout]))
    assert found.by_id == CAPTIONS
    assert (found.skipped, len(found)) == ([], 2)


@pytest.mark.parametrize(("name", "between"), [("file.csv", ","), ("file.TSV", "\t")])
def test_tables_are_read_by_their_columns(write, name, between):
    rows = [["score", "image_id", "caption"], ["1", "310196", "A dog on a bench."], ["2", "42", '"Two cats."']]
    table = write("".join(between.join(row) + "\r\n" for row in rows), name)
    assert read_captions(table).by_id == CAPTIONS
    texts = [["image_id", "caption"], ["42", f'"Two cats,{between}\na dog"'], ["7", "x"], ["7", "y"]]
    quoted = write("".join(between.join(row) + "\n" for row in texts), name)
    with pytest.raises(ValueError, match="line 5 repeats 7 of line 4"):
        read_captions(quoted)
    assert read_captions(quoted, strict=False).by_id == {42: f"Two cats,{between}\na dog", 7: "x"}
    with pytest.raises(ValueError, match="line 2 has no caption; found image_id, words"):
        read_captions(write(f"image_id{between}words\n42{between}x\n", name))


def test_a_single_line_is_a_row_and_not_an_object_of_captions(write):
    assert read_captions(write(lines(OPERA[0]))).by_id == {310196: "A dog on a bench."}
    assert read_captions(write(lines({"image_id": 7, "caption": ["A dog."]}))).by_id == {7: "A dog."}
    with pytest.raises(ValueError, match="line 1 has no text as caption: None"):
        read_captions(write(lines({"image_id": 7, "caption": None})))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COCO_val2014_000000310196.jpg", 310196),
        ("COCO_train2014_000000000009.jpg", 9),
        ("000000000139.jpg", 139),
        ("/data/val2017/000000000139.jpg", 139),
        ("C:\\data\\COCO_val2014_000000000042.jpg", 42),
        ("310196", 310196),
        (310196, 310196),
        ("2407890.jpg", 2407890),
        ("n161313.jpg", "n161313.jpg"),
        ("test_000017.png", "test_000017.png"),
        ("AMBER_12.jpg", "AMBER_12.jpg"),
    ],
)
def test_image_ids_are_taken_from_coco_file_names(name, expected):
    assert image_id(name) == expected


# What is wrong, and where

WRONG = {
    "a torn line": (lines(OPERA[0]) + '{"image_id": 7, "capt\n' + lines(OPERA[1]), "line 2 is not JSON"),
    "a torn first line": ('{"image_id": 7, "capt\n' + lines(*OPERA), "line 1 is not JSON"),
    "a torn last line": (lines(*OPERA) + '{"image_id": 7, "caption": "A', "line 3 is not JSON"),
    "no caption": (lines(*OPERA, {"image_id": 7, "score": 1}), "line 3 has no caption; found image_id, score"),
    "no id": (lines(*OPERA, {"caption": "A"}), "line 3 has no id; looked for image_id"),
    "a caption of null": (lines(*OPERA, {"image_id": 7, "caption": None}), "line 3 has no text as caption: None"),
    "a repeated id": (lines(*OPERA, {"image_id": "42", "caption": "x"}), "line 3 repeats 42 of line 2"),
    "an id that is a list": (lines(*OPERA, {"image_id": [7], "caption": "x"}), "line 3 has an id that is neither"),
    "a row that is a number": (lines(*OPERA, 7), "line 3 is 7; needed: an object"),
    "a row with an error": (
        lines(*OPERA, {"image_id": 7, "text": "", "error": "no file"}), "line 3 has no caption, but an error: no file",
    ),
    "an array's entry": (json.dumps([*OPERA, {"image_id": 7}]), "entry 3 has no caption"),
    "a held entry": (json.dumps({"sentences": [*OPERA, {"image_id": 7}]}), "entry 3 of 'sentences' has no caption"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place(write, case):
    content, message = WRONG[case]
    with pytest.raises(ValueError, match=r"file.jsonl: ") as caught:
        read_captions(write(content))
    assert message in str(caught.value)


@pytest.mark.parametrize("case", WRONG)
def test_unstrict_reading_skips_and_counts(write, case):
    content, message = WRONG[case]
    found = read_captions(write(content), strict=False)
    assert found.by_id == CAPTIONS
    assert len(found.skipped) == 1
    assert message in found.skipped[0]
    assert str(found).startswith("2 read, 1 skipped, such as ")


@pytest.mark.parametrize("content", ["", "\n \n"])
@pytest.mark.parametrize("strict", [True, False])
def test_an_empty_file_is_an_error(write, content, strict):
    with pytest.raises(ValueError, match=r"file.jsonl is empty; needed: captions as JSON lines"):
        read_captions(write(content), strict)


@pytest.mark.parametrize("content", ["[]", "{}", '{"sentences": []}'])
def test_a_file_without_captions_is_an_error(write, content):
    with pytest.raises(ValueError, match="holds no captions"):
        read_captions(write(content), strict=False)


def test_a_torn_document_says_its_line(write):
    content = json.dumps(OPERA, indent=2)[:-10]
    with pytest.raises(ValueError, match=r"file.jsonl: line \d+ is not JSON"):
        read_captions(write(content), strict=False)


def test_other_files_are_refused(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of captions at"):
        read_captions(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds a int; needed"):
        read_captions(write("7"))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no UTF-8 text"):
        read_captions(binary)


# Answers

ANSWERS = {1: "Yes", 2: "No, there is not."}


@pytest.mark.parametrize(
    "rows",
    [
        [{"question_id": 1, "answer": "Yes"}, {"question_id": 2, "answer": "No, there is not."}],
        [{"question_id": "1", "response": "Yes"}, {"question_id": "2", "response": "No, there is not."}],
        [{"id": 1, "response": "Yes"}, {"id": 2, "response": "No, there is not."}],  # AMBER
        [{"question_id": n, "prompt": "Is there?", "text": t, "answer_id": "x"} for n, t in ANSWERS.items()],  # LLaVA
        [{"question_id": n, "image": "a", "text": "Is there?", "label": "no", "answer": t} for n, t in ANSWERS.items()],
        [{"id": n, "image": "a", "question": "Is there?", "label": "no", "text": t} for n, t in ANSWERS.items()],
    ],
)
def test_answers_are_read_from_every_layout(write, rows):
    for content in (lines(*rows), json.dumps(rows)):
        found = read_answers(write(content))
        assert found.by_id == ANSWERS
        assert not found.numbered


def test_an_object_of_answers_is_read(write):
    assert read_answers(write(json.dumps({"1": "Yes", "2": "No, there is not."}))).by_id == ANSWERS


def test_answers_without_ids_are_numbered_by_order_as_popes_program_does(write):
    rows = [{"question": "is there a bird?", "answer": "yes"}, {"question": "is there a cat?", "answer": "no"}]
    found = read_answers(write(lines(*rows)))
    assert (found.by_id, found.numbered) == ({1: "yes", 2: "no"}, True)
    assert in_order([{"question_id": 7}, {"question_id": 5}], found) == ["yes", "no"]
    with pytest.raises(ValueError, match="2 answers without ids and 3 questions"):
        in_order([{"question_id": n} for n in range(3)], found)


def test_answers_with_ids_of_another_file_can_be_matched_by_order(write):
    rows = [{"question_id": 901, "text": "yes"}, {"question_id": 900, "text": "no"}]
    requests = [{"question_id": 1}, {"question_id": 2}]
    with pytest.raises(ValueError, match=r"2 have no answer, such as 1 and 2 answers are to none.*--by-order"):
        in_order(requests, read_answers(write(lines(*rows))))
    found = read_answers(write(lines(*rows)), by_order=True)
    assert (found.numbered, in_order(requests, found)) == (True, ["yes", "no"])


def test_ids_on_some_answers_only_are_refused(write):
    rows = [{"question_id": 1, "answer": "yes"}, {"answer": "no"}]
    with pytest.raises(ValueError, match="line 2 has no id; looked for question_id"):
        read_answers(write(lines(*rows)))


def test_a_file_of_questions_is_not_taken_for_answers(write):
    rows = [{"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}]
    with pytest.raises(ValueError, match=r"line 1 has a text and a label.*is this the file of questions"):
        read_answers(write(lines(*rows)))


def test_our_answers_keep_their_own_ids(write):
    row = {"id": "a.jpg: Is there a dog?", "image_id": 3, "question": "?", "label": "no", "text": "No", "error": None}
    assert read_answers(write(lines(row))).by_id == {"a.jpg: Is there a dog?": "No"}


# As lmms-eval logs samples: with the question's document, and (later) without it, the id beside the metric's judgement
LOGGED = {
    "doc": lambda n, text: {"doc_id": n + 4, "doc": {"id": "9", "question_id": str(n), "answer": "yes"},
                            "target": "yes", "resps": [[text]], "filtered_resps": [text]},
    "metric": lambda n, text: {"doc_id": n + 4, "target": "yes", "filtered_resps": [[text]],
                               "pope_accuracy": {"question_id": str(n), "score": 1.0, "prediction": "yes"}},
}  # fmt: skip


@pytest.mark.parametrize("kind", LOGGED)
def test_samples_that_lmms_eval_logged_are_read(write, kind):
    rows = [LOGGED[kind](number, text) for number, text in ANSWERS.items()]
    assert read_answers(write(lines(*rows))).by_id == ANSWERS
    assert read_answers(write(json.dumps({"args": {}, "logs": rows}))).by_id == ANSWERS
    captions = [
        {"doc_id": n, "filtered_resps": [text], "coco_CIDEr": {"answer": ["A dog."], "pred": text, "image_id": image}}
        for n, (image, text) in enumerate(CAPTIONS.items())
    ]
    assert read_captions(write(lines(*captions))).by_id == CAPTIONS


def test_a_true_answer_beside_the_models_is_never_scored_in_its_place(write):
    """A file whose "answer" is the label would otherwise score 100 %."""
    rows = [{"question_id": n, "answer": "yes", "pred": text} for n, text in ANSWERS.items()]
    with pytest.raises(ValueError, match=r"line 1 has answer and pred, which differ: 'yes' and 'Yes'.*--field pred"):
        read_answers(write(lines(*rows)))
    assert read_answers(write(lines(*rows)), field="pred").by_id == ANSWERS
    same = [{**row, "answer": row["pred"]} for row in rows]
    assert read_answers(write(lines(*same))).by_id == ANSWERS


def test_a_field_of_any_name_can_hold_the_text(write):
    path = write(lines(*({"image_id": image, "said": text, "caption": "x"} for image, text in CAPTIONS.items())))
    assert read_captions(path, field="said").by_id == CAPTIONS
    with pytest.raises(ValueError, match="line 1 has no caption; found image_id, said, caption, looked for words"):
        read_captions(path, field="words")


def test_answers_are_put_in_the_order_of_the_questions():
    answers = Predictions({1: "Yes", "2": "No"})
    requests = [{"question_id": 1}]
    with pytest.raises(ValueError, match="of 1 questions 1 answers are to none of them, such as '2'"):
        in_order(requests, answers)
    with pytest.raises(ValueError, match="of 2 questions 1 have no answer, such as 9"):
        in_order([{"question_id": 1}, {"question_id": 9}], Predictions({1: "Yes"}))


def test_nine_thousand_answers_are_read_within_a_second(write):
    path = write(lines(*({"question_id": n, "answer": "Yes, there is."} for n in range(9000))))
    start = time.perf_counter()
    assert len(read_answers(path)) == 9000
    assert time.perf_counter() - start < 1
