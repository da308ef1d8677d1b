"""Files of captions and answers that any program wrote, scored. Loads neither torch nor Prefect."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...metrics import chair_score, pope
from ...metrics.captions_file import Predictions, image_id, in_order, read_answers, read_captions
from ...metrics.chair import Chair, ChairScore, truncate_last_sentence
from ...metrics.estimate import Estimate
from ...metrics.truth_files import read_truth

Table = Mapping[str, Estimate]


@dataclass(frozen=True)
class Scored:
    """What a file scores, and all that this depends on.

    Args:
        benchmark: chair, pope, amber, …
        protocol: how the texts were read.
        files: file name -> SHA-256 of all that was read.
        tables: title -> figure -> estimate.
        higher_is_better: figure -> direction; figures without one are left out.
        rows: one per caption or answer.
        skipped: what was left out, and why; empty when read strictly.
        notes: what to know before quoting the figures.
    """

    benchmark: str
    protocol: dict[str, Any]
    files: dict[str, str]
    tables: dict[str, Table]
    higher_is_better: Mapping[str, bool]
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON; figures have value, low, high and n."""
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "files": self.files,
            "scores": {
                title: {name: vars(estimate) for name, estimate in table.items()}
                for title, table in self.tables.items()
            },
            "skipped": self.skipped,
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Captions:
    """Captions and their truth, ready to be scored, with what was left out."""

    chair: Chair
    texts: dict[int | str, str]
    truth: dict[int | str, set[str]]
    protocol: dict[str, Any]
    files: dict[str, str]
    skipped: list[str]
    notes: list[str]


# -- CHAIR ---------------------------------------------------------------------------------------------------------
def captions(
    path: Path, ground_truth: Sequence[Path], synonyms: Path | None = None, family: str | None = None,
    truth_family: str | None = None, images: Path | None = None, drop_last_sentence: bool = False,
    skip_bad: bool = False, at_full_stop: bool = False, field: str | None = None,
) -> Captions:  # fmt: skip
    """Captions of a file with the truth of their images.

    Args:
        path: in any layout of `read_captions`.
        ground_truth: as `read_truth`.
        synonyms, family: as `Chair`. truth_family: reads reference captions and chooses ready-made sets; None is the
            captions' own. OPERA's table pairs wordnet captions with pattern truth.
        images: a file of image ids; other captions are left out.
        drop_last_sentence: cut the unfinished last sentence off each caption, for runs of 64 tokens.
        skip_bad: leave out what cannot be used, and say so, instead of stopping.
        at_full_stop: cut every caption behind its last full stop, as OPERA's program; implies drop_last_sentence.
        field: where the rows have the caption, if it is not found by itself.

    Raises:
        FileNotFoundError, ValueError: as those; images without a caption, or captions without truth (with the line).
    """
    chair = Chair(synonyms, family)
    truth_chair = chair if truth_family in (None, chair.family) else Chair(synonyms, truth_family)
    read = read_captions(path, not skip_bad, field)
    skipped, texts, notes = list(read.skipped), dict(read.by_id), []
    if images is not None:
        wanted = read_ids(images)
        lacking = [image for image in wanted if image not in texts]
        _refuse(lacking, skip_bad, skipped, f"{len(wanted)} images of {images}", f"have no caption in {path}")
        others = len(texts.keys() - set(wanted))
        notes += [f"{others} captions of images that are not in {images} are not scored"] if others else []
        texts = {image: texts[image] for image in wanted if image in texts}
        if not texts:
            raise ValueError(f"{path} has no caption of any image in {images}; ids there are like {wanted[0]!r}.")
    truth = read_truth(ground_truth, truth_chair, texts)
    if not truth:
        first = next(iter(texts))
        raise ValueError(
            f"none of the {len(texts)} captions' images is in {listed(ground_truth)}; the first is {first!r} "
            f"({path}, {read.places[first]}). Ids are numbers, or file names from which COCO's number is read."
        )
    unknown = [image for image in texts if image not in truth]
    places = [f"{read.places[image]}: image {image!r}" for image in unknown]
    _refuse(places, skip_bad, skipped, f"{len(texts)} captions of {path}", f"are not in {listed(ground_truth)}")
    texts = {image: text for image, text in texts.items() if image in truth}
    if drop_last_sentence or at_full_stop:
        whole = texts
        texts = {image: truncate_last_sentence(text, at_full_stop) for image, text in whole.items()}
        cut = sum(texts[image] != whole[image] for image in whole)
        notes.append(f"{cut} of {len(whole)} captions lost an unfinished last sentence")
        emptied = sum(not texts[image] and bool(whole[image].strip()) for image in whole)
        notes += [f"{emptied} captions without a full stop are empty now, and so without hallucination"] * bool(emptied)
    protocol = {
        "name": "chair", "family": chair.family, "truth_family": truth_chair.family, "captions": len(texts),
        "synonyms": chair.synonyms.name, "nltk": _nltk(chair),
        "drop_last_sentence": "at the last full stop" if at_full_stop else drop_last_sentence,
    }  # fmt: skip
    files = digests([path, *ground_truth, chair.synonyms, *([images] if images else [])])
    return Captions(chair, texts, truth, protocol, files, skipped, notes)


def score_chair(read: Captions) -> Scored:
    """CHAIR of captions, with every mention."""
    found = read.chair.score(read.texts, read.truth)
    notes = list(read.notes)
    if not found.counts.mentions:
        notes.append("no caption mentions any object of the vocabulary: chair_i is 0 with n = 0")
    return Scored(
        "chair", read.protocol, read.files, {"": found.estimates()}, chair_score.HIGHER_IS_BETTER, mentions(found),
        read.skipped, notes,
    )  # fmt: skip


def mentions(found: ChairScore) -> list[dict[str, Any]]:
    """A row per caption: what it mentions, where, and which of it is not there."""
    return [
        {
            "image_id": image, "caption": one.caption, "words": one.mentions.words, "objects": one.mentions.objects,
            "indices": one.mentions.indices, "spans": one.mentions.spans, "hallucinated": one.hallucinated,
            "truth": sorted(one.truth), "chair_s": one.chair_s, "chair_i": one.chair_i, "recall": one.recall,
            "length": len(one.mentions.tokens),
        }
        for image, one in found.per_caption.items()
    ]  # fmt: skip


# -- POPE ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answered:
    """Answers beside their questions, split by split."""

    questions: dict[str, list[dict[str, Any]]]
    answers: dict[str, list[str]]
    files: dict[str, str]
    skipped: list[str]


def answered(
    paths: Sequence[Path], questions: Sequence[Path], skip_bad: bool = False, by_order: bool = False,
    field: str | None = None,
) -> Answered:  # fmt: skip
    """The answers to each file of questions: one file of answers for each, in the same order.

    by_order: the n-th answer is to the n-th question, whatever their ids say; nothing can be left out then. One file
        may then hold the answers to all files of questions, one after the other, as LLaVA's and lmms-eval's do.
    field: where the rows have the answer, if it is not found by itself.

    Raises:
        FileNotFoundError, ValueError: as `read_answers` and `read_questions`; another number of files; questions
            without an answer, or answers to no question.
    """
    names = [path.stem if [p.stem for p in questions].count(path.stem) == 1 else str(path) for path in questions]
    asked: dict[str, list[dict[str, Any]]] = {}
    for name, path in zip(names, questions, strict=True):
        asked[name] = pope.read_questions(path)
    if len(asked) < len(questions):
        raise ValueError(f"the same file of questions twice among {listed(questions)}.")
    said: dict[str, list[str]] = {}
    skipped: list[str] = []
    if by_order and len(paths) == 1 < len(questions):
        whole = in_order([q for part in asked.values() for q in part], read_answers(paths[0], True, True, field))
        for name, part in asked.items():
            said[name], whole = whole[: len(part)], whole[len(part) :]
        return Answered(asked, said, digests([*paths, *questions]), skipped)
    if len(paths) != len(questions):
        raise ValueError(
            f"{len(paths)} files of answers and {len(questions)} of questions: each file of questions needs its file "
            "of answers, in the same order (ids repeat from split to split), or one file that answers all of them one "
            "after the other (--by-order)."
        )
    for answers, name in zip(paths, names, strict=True):
        read = read_answers(answers, by_order or not skip_bad, by_order, field)
        skipped += read.skipped
        asked[name], said[name] = _joined(asked[name], read, skip_bad, skipped, answers)
    return Answered(asked, said, digests([*paths, *questions]), skipped)


def score_pope(read: Answered, protocol: str = "official") -> Scored:
    """POPE of each split, their mean, and of all questions together; images are resampled with all their questions."""
    tables: dict[str, Table] = {}
    splits = []
    rows, labels, images, texts = [], [], [], []  # type: ignore[var-annotated]
    for name, asked in read.questions.items():
        said = read.answers[name]
        split = [q["label"] for q in asked], [q["image"] for q in asked]
        splits.append((said, *split))
        tables[name] = pope.estimates(said, *split, protocol=protocol)
        judged = pope.outcomes(said, split[0], protocol)
        rows += [
            {
                "split": name, "question_id": q["question_id"], "image": q["image"], "text": q["text"],
                "answer": text, "label": q["label"], "said": pope.parse(text, protocol), "correct": bool(one.correct),
            }
            for q, text, one in zip(asked, said, judged, strict=True)
        ]  # fmt: skip
        labels, images, texts = labels + split[0], images + split[1], texts + said
    if len(tables) > 1:
        tables["mean"] = pope.mean_of_splits(splits, protocol)
        tables["all"] = pope.estimates(texts, labels, images, protocol=protocol)
    unread = sum(row.unparsed for row in pope.outcomes(texts, labels, protocol))
    about = {
        "name": protocol, "questions": len(texts), "images": len(set(images)), "unparsed": unread,
        "prompt suffix of its users": pope.PROMPT_SUFFIX[protocol],
    }  # fmt: skip
    notes = []
    if unread and protocol != "strict":
        notes.append(f"{unread} of {len(texts)} answers hold neither or both of yes and no; {protocol} decides anyway")
    return Scored("pope", about, read.files, tables, pope.HIGHER_IS_BETTER, rows, read.skipped, notes)


def _joined(
    asked: list[dict[str, Any]], read: Predictions, skip_bad: bool, skipped: list[str], path: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Questions and answers one to one; with skip_bad those that have both."""
    if skip_bad and not read.numbered:
        numbers = {_number(q["question_id"]) for q in asked}
        stray = [number for number in read.by_id if number not in numbers]
        skipped += [f"{path}: {read.places[number]} answers {number!r}, which no question has" for number in stray]
        kept = [q for q in asked if _number(q["question_id"]) in read.by_id]
        lacking = [q["question_id"] for q in asked if _number(q["question_id"]) not in read.by_id]
        skipped += [f"{path}: no answer to question {number!r}" for number in lacking]
        if not kept:
            raise ValueError(f"{path} answers none of the {len(asked)} questions: is it another question file?")
        return kept, [read.by_id[_number(q["question_id"])] for q in kept]
    return asked, in_order(asked, read)


# -- shared --------------------------------------------------------------------------------------------------------
def read_ids(path: Path) -> list[int | str]:
    """Image ids from a file: a JSON array, or one a line; numbers or file names. Each once, in the file's order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: none in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of image ids at {path}.")
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = text.split("\n")
    names = content if isinstance(content, list) else [content]
    ids = [image_id(name) for name in names if isinstance(name, int) or (isinstance(name, str) and name.strip())]
    if not ids or len(ids) < sum(name not in ("", None) for name in names):
        raise ValueError(f"{path} holds no list of image ids; needed: a JSON array, or one id or file name a line.")
    return list(dict.fromkeys(ids))


def digests(paths: Collection[Path]) -> dict[str, str]:
    """SHA-256 of files, by name; of a folder its annotation files."""
    found: dict[str, str] = {}
    for path in paths:
        inside = [*path.glob("*.json"), *path.glob("annotations/*.json")] if path.is_dir() else [path]
        for file in sorted(inside):
            with file.open("rb") as content:
                found[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    from ..files.atomic import write_text

    write_text(path, "".join(_line(row) + "\n" for row in rows))


def _refuse(bad: Sequence[Any], skip_bad: bool, skipped: list[str], of: str, what: str) -> None:
    """Stop at what cannot be used, or count it."""
    if bad and not skip_bad:
        raise ValueError(
            f"{len(bad)} of {of} {what}, such as {bad[0]}. Give all that is needed, or --skip-bad to leave them out."
        )
    skipped += [f"{one} {what.replace('have', 'has').replace('are ', 'is ')}" for one in bad]


def _line(row: Mapping[str, Any]) -> str:
    """As readable as can be: half a surrogate pair, cut off by some program, has no UTF-8."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return json.dumps(row, allow_nan=False) if re.search("[\ud800-\udfff]", text) else text


def _number(name: Any) -> Any:
    return int(name) if isinstance(name, str) and name.strip().isdecimal() else name


def _nltk(chair: Chair) -> str | None:
    """NLTK's version where it reads the captions: 3.10 splits words that older ones keep."""
    if chair.family == "exact":
        return None
    from importlib.metadata import version

    return version("nltk")
