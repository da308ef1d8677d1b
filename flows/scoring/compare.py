"""Systems side by side on the same images: result folders of `evaluate`, or files that any program wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...datasets.examples import Example
from ...metrics import compare, counted, pope
from ...metrics.chair import Chair
from ..benchmarks.base import Benchmark, Source
from ..benchmarks.chair import CHAIR
from ..benchmarks.pope import ALL, POPE, PREFIX
from ..benchmarks.registry import BENCHMARKS
from ..evaluation import answer_file
from ..evaluation.request import MANIFEST, RESULTS, Evaluation
from ..files import atomic
from . import caption_files, files

Key = tuple[str, str]  # question, image: the same in both systems
Figure = tuple[str, str]  # benchmark, figure


@dataclass(frozen=True)
class Texts:
    """Captions by image, with the truth and the vocabulary that reads them."""

    chair: Chair
    answers: dict[int | str, str]
    truth: Mapping[int | str, Any]


@dataclass(frozen=True)
class Split:
    """Answers by question, with their labels."""

    answers: dict[Key, str]
    labels: dict[Key, str]
    protocol: str


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to a benchmark that counts them itself, by example."""

    benchmark: Benchmark
    source: Source
    examples: Mapping[str, Example]
    answers: dict[str, str]

    def counted(self, shared: Sequence[str]) -> Mapping[str, counted.Counted]:
        """The counts of some of the examples, by title."""
        texts = [self.answers[name] for name in shared]
        return self.benchmark.counted(self.source, [self.examples[name] for name in shared], texts)


Part = Texts | Split | Answers


@dataclass(frozen=True)
class System:
    """One system on one benchmark.

    Args:
        name: as it is printed. benchmark: chair, pope, or another of `evaluate`'s.
        method: what repeated runs have in common: a decoder's name, or the file's.
        parts: title -> its answers; empty where this benchmark has no paired comparison.
        about: the part of a manifest that must agree for two systems to be comparable.
        figures: every figure by itself.
    """

    name: str
    benchmark: str
    method: str
    parts: Mapping[str, Part]
    about: Mapping[str, Any]
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Two systems on one benchmark: every figure of each part, what makes them incomparable, and what else to know."""

    baseline: System
    system: System
    tables: dict[str, compare.Found]
    warnings: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def ranked(self) -> list[str]:
        """Figures outside the noise."""
        return [
            f"{title} {name}".strip() for title, table in self.tables.items() for name, one in table.items()
            if one.verdict in ("better", "worse")
        ]  # fmt: skip

    def record(self) -> dict[str, Any]:
        return {
            "benchmark": self.system.benchmark, "baseline": self.baseline.name, "system": self.system.name,
            "warnings": self.warnings, "notes": self.notes, "ranked": self.ranked,
            "tables": {
                title: {
                    name: {
                        "system": one.first, "baseline": one.second, "difference": vars(one.difference),
                        "p": one.p, "p_holm": one.adjusted, "differing": one.differing, "verdict": one.verdict,
                    }
                    for name, one in table.items()
                }
                for title, table in self.tables.items()
            },
        }  # fmt: skip


# -- systems -------------------------------------------------------------------------------------------------------
def of_folder(folder: Path, decoders: Sequence[str] = ()) -> list[System]:
    """Every decoder on every benchmark of a folder of results, or those decoders alone.

    Raises:
        FileNotFoundError, ValueError: no results, answers that are missing, or a decoder that was not run.
    """
    request = Evaluation.read(folder)
    manifest, results = atomic.read_json(folder / MANIFEST), atomic.read_json(folder / RESULTS)
    missing = [name for name in decoders if name not in request.decoders]
    if missing:
        raise ValueError(f"{folder} has no decoder {missing[0]!r}; it has {', '.join(request.decoders)}.")
    figures = {
        (record["benchmark"], record["decoder"]): {name: cell["value"] for name, cell in record["metrics"].items()}
        for record in results
    }
    found = []
    for benchmark in request.benchmarks:
        for decoder in decoders or request.decoders:
            found.append(System(
                f"{folder}:{decoder}", benchmark, decoder, _parts(folder, request, benchmark, decoder),
                {benchmark: manifest["benchmarks"][benchmark], "dataset": manifest["dataset"],
                 "files": manifest.get("files", {})}, figures.get((benchmark, decoder), {}),
            ))  # fmt: skip
    return found


def of_file(path: Path) -> System | None:
    """The system of a file of answers inside a folder of results; None for any other file.

    Raises:
        FileNotFoundError, ValueError: as `of_folder`.
    """
    folder = path.parent.parent
    if not (path.is_file() and (folder / MANIFEST).is_file()):
        return None
    inside = [s for s in of_folder(folder) if answer_file.answers_path(folder, s.benchmark, s.method) == path]
    return inside[0] if inside else None


def of_captions(path: Path, read: caption_files.Captions, decoder: str | None = None) -> System:
    """The captions of a file, or of one decoder in it, with the truth of their images."""
    about = {"protocol": read.protocol, "image_ids": list(read.texts)}
    found = read.chair.score(read.texts, read.truth).to_dict()
    figures = {name: float(value) for name, value in found.items() if name not in ("family", "n")}
    name = str(path) if decoder is None else f"{path}:{decoder}"
    return System(name, "chair", decoder or "captions", {"": Texts(read.chair, read.texts, read.truth)}, about, figures)


def of_answers(path: Path, read: files.Answered, protocol: str) -> System:
    """A file of answers to POPE's questions."""
    ((title, questions),) = read.questions.items()
    answers = read.answers[title]
    keys = _numbered([(str(q["text"]), str(q["image"])) for q in questions])
    split = Split(
        dict(zip(keys, answers, strict=True)), {k: q["label"] for k, q in zip(keys, questions, strict=True)}, protocol
    )
    figures = pope.score(list(split.answers.values()), list(split.labels.values()), protocol)
    return System(str(path), "pope", "answers", {title: split}, {"protocol": protocol, "files": title}, figures)


def _parts(folder: Path, request: Evaluation, benchmark: str, decoder: str) -> dict[str, Part]:
    asker, source = BENCHMARKS[benchmark], request.source
    counts = getattr(type(asker), "counted", Benchmark.counted) is not Benchmark.counted
    if not isinstance(asker, CHAIR | POPE) and not counts:
        return {}
    examples = asker.examples(source)
    rows = answer_file.rows_of(str(folder), benchmark, decoder, examples)
    good = [(e, row["text"]) for e, row in zip(examples, rows, strict=True) if row["error"] is None]
    if not isinstance(asker, CHAIR | POPE):
        return {"": Answers(asker, source, {e.id: e for e, _ in good}, {e.id: text for e, text in good})}
    if isinstance(asker, CHAIR):
        truth = {e.image_id: e.objects for e, _ in good}
        return {"": Texts(source.chair, {e.image_id: text for e, text in good}, truth)}
    parts: dict[str, Part] = {}
    in_splits = [(split, e, text) for e, text in good for split in e.splits]
    titles = dict.fromkeys(split for split, _, _ in in_splits)
    for title in [*titles, *([ALL] if len(titles) > 1 else [])]:  # a question of several splits counts in each
        inside = [(e, text) for split, e, text in in_splits if title in (split, ALL)]
        keys = _numbered([(str(e.question), str(e.image_id)) for e, _ in inside])
        parts[title] = Split(
            {key: text for key, (_, text) in zip(keys, inside, strict=True)},
            {key: e.label or "" for key, (e, _) in zip(keys, inside, strict=True)}, source.pope,
        )  # fmt: skip
    return parts


def _numbered(keys: Sequence[Key]) -> list[Key]:
    """Keys made distinct: A-OKVQA's and GQA's adversarial questions each ask one thing about one image twice."""
    seen: Counter[Key] = Counter()
    found = []
    for text, image in keys:
        seen[text, image] += 1
        found.append((text if seen[text, image] == 1 else f"{text} ({seen[text, image]})", image))
    return found


# -- comparing -----------------------------------------------------------------------------------------------------
def against_first(systems: Sequence[System]) -> list[Found]:
    """On every benchmark all further systems against the first one, with verdicts that hold together (`judged`).

    This is the one rule for results: `compare` prints these verdicts and the report colours by them.

    Raises:
        ValueError: as `pair`.
    """
    found: list[Found] = []
    for benchmark in dict.fromkeys(system.benchmark for system in systems):
        base, *others = [system for system in systems if system.benchmark == benchmark]
        found += judged([pair(base, other) for other in others])
    return found


def judged(found: Sequence[Found], watched: Collection[Figure] = ()) -> list[Found]:
    """The same comparisons with their p's adjusted for all verdicts of all of them (`metrics.compare.together`).

    watched: (benchmark, figure as results name it) of figures that are read by themselves: they are adjusted for each
        other, and the others for each other.
    """
    tables = [{title: dict(table) for title, table in one.tables.items()} for one in found]
    families: dict[bool, list[tuple[int, str, str]]] = {True: [], False: []}
    for at, one in enumerate(found):
        for title, name in [(title, name) for title, table in one.tables.items() for name in table]:
            families[(one.system.benchmark, figure_name(title, name)) in watched].append((at, title, name))
    for family in families.values():
        adjusted = compare.together([tables[at][title][name] for at, title, name in family])
        for (at, title, name), comparison in zip(family, adjusted, strict=True):
            tables[at][title][name] = comparison
    return [replace(one, tables=dict(tables[at])) for at, one in enumerate(found)]


def tested(found: Sequence[Found]) -> str:
    """How many verdicts hold together, and what that means, as a sentence without its full stop."""
    figures = [one for pair in found for table in pair.tables.values() for one in table.values()]
    return (
        f"{sum(one.testable for one in figures)} of {len(figures)} figures differ on enough images to be tested; their "
        "p's are corrected for each other (Holm), so that the chance of one false verdict or more is at most 5 %; each "
        "interval stands for itself"
    )


def figure_name(title: str, name: str) -> str:
    """A figure of a comparison as results call it: with its split in front, but for those of all splits.

    >>> figure_name("popular", "f1"), figure_name("all three", "f1"), figure_name("", "chair_s")
    ('popular_f1', 'f1', 'chair_s')
    """
    return {"": "", **PREFIX}.get(title, f"{title}_") + name


def pair(baseline: System, system: System) -> Found:
    """A system against the baseline, on what both were asked, paired by image; each verdict stands for itself.

    CHAIR is compared as written, and at equal length; POPE split by split; others in the units that they count.

    Raises:
        ValueError: not one image or question in common, or another truth for the same one.
    """
    warnings = compare.warnings_between(baseline.about, system.about)
    tables: dict[str, compare.Found] = {}
    for title, one in system.parts.items():
        other = baseline.parts.get(title)
        if isinstance(one, Texts) and isinstance(other, Texts):
            tables |= _captions(one, other, warnings, f"{system.name} and {baseline.name}")
        elif isinstance(one, Split) and isinstance(other, Split):
            tables[title] = _answers(one, other, warnings, f"{system.name} and {baseline.name}, {title}")
        elif isinstance(one, Answers) and isinstance(other, Answers):
            tables |= _counted(one, other, warnings, f"{system.name} and {baseline.name}")
        else:
            warnings.append(f"only {system.name} has {title or system.benchmark}: not compared.")
    unpaired = f"{system.benchmark} has no paired comparison; its figures stand in {RESULTS}"
    notes = [] if system.parts else [unpaired]
    boxes = sum(
        compare.without_coordinates(text) != text for one in (baseline, system) for part in one.parts.values()
        if isinstance(part, Texts) for text in part.answers.values()
    )  # fmt: skip
    notes += [f"{boxes} captions hold coordinates, which do not count as words at equal length"] * bool(boxes)
    return Found(baseline, system, tables, warnings, notes)


def _captions(one: Texts, other: Texts, warnings: list[str], names: str) -> dict[str, compare.Found]:
    shared = [image for image in one.answers if image in other.answers]
    _check_shared(len(shared), len(one.answers), len(other.answers), "images", warnings, names)
    unlike = [image for image in shared if set(one.truth[image]) != set(other.truth[image])]
    if unlike:
        raise ValueError(
            f"{names} have other objects in {len(unlike)} of {len(shared)} images, such as {unlike[0]!r}: score both "
            "against the same ground truth."
        )
    mine, theirs = ({image: texts.answers[image] for image in shared} for texts in (one, other))
    written = compare.compare_chair(one.chair.score(mine, one.truth), other.chair.score(theirs, one.truth))
    matched = compare.compare_chair(*compare.length_matched(one.chair, mine, theirs, one.truth))
    kept = ("chair_s", "chair_i", "recall", "precision", "f1", "length")
    return {"": written, "at equal length": {name: matched[name] for name in kept}}


def _answers(one: Split, other: Split, warnings: list[str], names: str) -> compare.Found:
    shared = [key for key in one.answers if key in other.answers]
    _check_shared(len(shared), len(one.answers), len(other.answers), "questions", warnings, names)
    unlike = [key for key in shared if one.labels[key] != other.labels[key]]
    if unlike:
        raise ValueError(f"{names} have other labels for {len(unlike)} questions, such as {unlike[0][0]!r}.")
    if one.protocol != other.protocol:
        raise ValueError(f"{names} are read as {one.protocol!r} and {other.protocol!r}: choose one protocol for both.")
    mine, theirs = ([split.answers[key] for key in shared] for split in (one, other))
    labels, images = [one.labels[key] for key in shared], [key[1] for key in shared]
    return compare.compare_pope(mine, theirs, labels, images, one.protocol)


def _counted(one: Answers, other: Answers, warnings: list[str], names: str) -> dict[str, compare.Found]:
    shared = [name for name in one.answers if name in other.answers]
    _check_shared(len(shared), len(one.answers), len(other.answers), "questions", warnings, names)
    mine, theirs = ({n: (e.question, e.label, dict(e.facts)) for n, e in x.examples.items()} for x in (one, other))
    if unlike := [name for name in shared if mine[name] != theirs[name]]:
        raise ValueError(f"{names} have other questions or labels for {len(unlike)} examples, such as {unlike[0]!r}.")
    better, theirs_counted = one.benchmark.higher_is_better, other.counted(shared)
    return {
        title: counted.compare_counted(
            table, theirs_counted[title],
            {name: better[figure_name(title, name)] for name in (*table.ratios, *table.composed)
             if figure_name(title, name) in better},
        )
        for title, table in one.counted(shared).items()
    }  # fmt: skip


def _check_shared(shared: int, one: int, other: int, what: str, warnings: list[str], names: str) -> None:
    if not shared:
        raise ValueError(f"{names} have no {what} in common ({one} and {other}): a paired comparison needs the same.")
    if shared < max(one, other):
        warnings.append(f"compared on the {shared} {what} that both have, of {one} and {other}.")
