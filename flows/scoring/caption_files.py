"""Files of captions that any program wrote, scored by CHAIR, each decoder of a file as a system of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...metrics import chair_score
from ...metrics.captions_file import Predictions, decoders_in, read_captions
from ...metrics.chair import Chair, ChairScore, truncate_last_sentence
from ...metrics.truth_files import ids_by_name, read_truth
from .files import Scored, digests, listed, read_ids, refuse


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


@dataclass(frozen=True)
class CaptionOptions:
    """How a file of captions is read.

    Args:
        synonyms, family: as `Chair`. truth_family: reads reference captions and chooses ready-made sets; None is the
            captions' own. OPERA's table pairs wordnet captions with pattern truth.
        images: a file of image ids; other captions are left out.
        drop_last_sentence: cut the unfinished last sentence off each caption, for runs of 64 tokens.
        skip_bad: leave out what cannot be used, and say so, instead of stopping.
        at_full_stop: cut every caption behind its last full stop, as OPERA's program; implies drop_last_sentence.
        field: where the rows have the caption, if it is not found by itself.
    """

    synonyms: Path | None = None
    family: str | None = None
    truth_family: str | None = None
    images: Path | None = None
    drop_last_sentence: bool = False
    skip_bad: bool = False
    at_full_stop: bool = False
    field: str | None = None


def systems(path: Path, decoders: Sequence[str] = ()) -> list[str | None]:
    """The decoders of a file that are scored, each as a system of its own; [None] where its rows name none.

    Raises:
        ValueError: a decoder that the file does not have.
    """
    there = decoders_in(path)
    missing = [name for name in decoders if name not in there]
    if missing:
        raise ValueError(f"{path} has no decoder {missing[0]!r}; it has {', '.join(there) or 'none by name'}.")
    return list(decoders or there) or [None]


def captions(
    path: Path, ground_truth: Sequence[Path], options: CaptionOptions, decoder: str | None = None
) -> Captions:  # fmt: skip
    """Captions of a file with the truth of their images.

    Args:
        path: in any layout of `read_captions`. Images that it names by file are those of that name in `ground_truth`.
        ground_truth: as `read_truth`.
        decoder: the rows of this decoder alone.

    Raises:
        FileNotFoundError, ValueError: as those; images without a caption, or captions without truth (with the line).
    """
    family, truth_family, images, skip_bad = options.family, options.truth_family, options.images, options.skip_bad
    drop_last_sentence, at_full_stop = options.drop_last_sentence, options.at_full_stop
    chair = Chair(options.synonyms, family)
    truth_chair = chair if truth_family in (None, chair.family) else Chair(options.synonyms, truth_family)
    read = _numbered(read_captions(path, not skip_bad, options.field, decoder), ground_truth, path)
    skipped, texts, notes = list(read.skipped), dict(read.by_id), []
    if images is not None:
        names = ids_by_name(ground_truth) if any(isinstance(one, str) for one in read_ids(images)) else {}
        wanted = [names.get(str(one), one) for one in read_ids(images)]
        lacking = [image for image in wanted if image not in texts]
        refuse(lacking, skip_bad, skipped, f"{len(wanted)} images of {images}", f"have no caption in {path}")
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
    refuse(places, skip_bad, skipped, f"{len(texts)} captions of {path}", f"are not in {listed(ground_truth)}")
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


def side_by_side(found: Mapping[str, Scored]) -> Scored:
    """The scores of several decoders of one file as one: a table each, under the decoder's name."""
    first = next(iter(found.values()))
    return replace(
        first, protocol={**first.protocol, "captions": sum(one.protocol["captions"] for one in found.values())},
        tables={name: one.tables[""] for name, one in found.items()},
        rows=[{"decoder": name, **row} for name, one in found.items() for row in one.rows],
        skipped=list(dict.fromkeys(text for one in found.values() for text in one.skipped)),
        notes=[f"{name}: {text}" for name, one in found.items() for text in one.notes],
    )  # fmt: skip


def _numbered(read: Predictions, ground_truth: Sequence[Path], path: Path) -> Predictions:
    """Images that are named by file get the ids that the ground truth has for these names.

    Raises:
        ValueError: one image by its name and by its id.
    """
    if not any(isinstance(image, str) for image in read.by_id):
        return read
    names = ids_by_name(ground_truth)
    known = {image: names.get(image, image) if isinstance(image, str) else image for image in read.by_id}
    twice = [image for image, number in known.items() if image != number and number in read.by_id]
    if twice:
        raise ValueError(f"{path}: {twice[0]!r} and {known[twice[0]]!r} are one image; each may come once.")
    renamed = lambda table: {known[image]: value for image, value in table.items()}
    return replace(read, by_id=renamed(read.by_id), places=renamed(read.places))


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


def _nltk(chair: Chair) -> str | None:
    """NLTK's version where it reads the captions: 3.10 splits words that older ones keep."""
    if chair.family == "exact":
        return None
    from importlib.metadata import version

    return version("nltk")
