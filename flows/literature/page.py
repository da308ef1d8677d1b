"""The page that says what is left of published claims: docs/literature.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...metrics.compare import Comparison
from ...metrics.estimate import Estimate
from .closed import PUBLISHED, Answers, figures
from .folder import claims, index
from .pairs import Pair

COMMAND = (
    "veridical reproduce --released FOLDER --coco TRUTH --synonyms SYNONYMS --repope REPOPE \\\n"
    "  --out docs/literature.md"
)
INTRODUCTION = """# The literature, scored again

Captions and answers that published methods released, plain and method on the same images, read by one scorer. The
files are their authors': `veridical data released` fetches them from the repositories named below, each under its
SHA-256; the figures are ours.

<!-- not run: needs data of other repositories, and COCO -->
```bash
{command}
```

Captions are read with WordNet's forms against Pattern's ground truth, as OPERA's program does; all figures are in
percent. A difference is method minus plain, with its 95 % interval over images (docs/statistics.md). Verdicts on
"hallucinates less":

- **holds**: fewer hallucinations as written, and at equal length, where both captions of an image count up to the
  shorter one's number of tokens;
- **by length**: fewer as written, but not at equal length: the method says less;
- **inside the noise**: the difference ranks nothing;
- **fails**: more hallucinations than plain.

Within a paper, the p's of its hallucination figures are corrected for each other (Holm), and those of what it costs:
one false verdict or more among them has a chance of at most 5 %; the intervals stand for themselves. ▲ is better than
plain, ▼ worse, both outside the noise. "Published" has a ✓ where the released captions give the published figures to
the digit. Runs with several seeds are taken together, each seed with its own images.
"""


def page(
    pairs: Sequence[Pair], answers: Answers, skipped: Mapping[str, Sequence[str]], absent: Sequence[str],
    files: Mapping[str, str],
) -> str:  # fmt: skip
    """The whole page as Markdown.

    Args:
        skipped: file -> what was left out. absent: files that the folder lacks. files: what else was read -> SHA-256.
    """
    intro = INTRODUCTION.format(command=COMMAND)
    parts = [
        intro, _summary(pairs), *(_paper(name, pairs) for name in claims()["papers"]), _closed(answers),
        _left_out(skipped, absent), _sources(files),
    ]  # fmt: skip
    whole = "\n".join(part.rstrip() + "\n" for part in parts if part)
    return re.sub(r"\n{3,}", "\n\n", whole)


def _summary(pairs: Sequence[Pair]) -> str:
    rows = []
    for figure, title in (("chair_s", "CHAIR_S"), ("chair_i", "CHAIR_I")):
        counts = Counter(pair.verdict(figure) for pair in pairs)
        rows.append((title, *(counts[name] for name in ("holds", "by length", "inside the noise", "fails"))))
    lower = sum(pair.written["recall"].verdict == "worse" for pair in pairs)
    f1 = Counter(pair.written["f1"].verdict for pair in pairs)
    known = [pair.repeats(figure) for pair in pairs for figure in ("chair_s", "chair_i") if pair.published(figure)]
    return (
        "## In short\n\n"
        + table(("figure", "holds", "by length", "inside the noise", "fails"), rows)
        + f"\nOf {len(pairs)} pairs, {lower} lose recall; F1 rises in {f1['better']}, falls in {f1['worse']} and is "
        f"inside the noise in {f1['inside the noise']}. Of {len(known)} published pairs of figures that are known "
        f"here, {sum(map(bool, known))} follow from the released captions to the digit.\n"
    )


def _paper(name: str, pairs: Sequence[Pair]) -> str:
    own = [pair for pair in pairs if pair.about["paper"] == name]
    if not own:
        return ""
    title, number = claims()["papers"][name]
    verdicts, costs = [], []
    for pair in own:
        what = f"{pair.about['claim']}; {pair.about['model']}"
        for figure, short in (("chair_s", "C_S"), ("chair_i", "C_I")):
            one, cut = pair.written[figure], pair.matched[figure]
            verdicts.append((
                what if short == "C_S" else "", short, _published(pair, figure), _both(one),
                _difference(one), _difference(cut), f"**{pair.verdict(figure)}**",
            ))  # fmt: skip
        lengths = pair.written["length"]
        costs.append((
            what, pair.images, f"{lengths.second:.0f} → {lengths.first:.0f}",
            *(_moved(pair.written[figure]) for figure in ("recall", "f1", "repetition")),
            *(_moved(pair.matched[figure]) for figure in ("recall", "f1")),
        ))  # fmt: skip
    notes = dict.fromkeys(pair.about["note"] for pair in own if "note" in pair.about)
    sources = dict.fromkeys(pair.about["source"] for pair in own if "source" in pair.about)
    remarks = [*(f"{note[0].upper()}{note[1:]}." for note in notes), *(f"Published figures: {one}." for one in sources)]
    return (
        f"## {title}{f' ({number})' if number else ''}\n\n"
        + ("\n".join(remarks) + "\n\n" if remarks else "")
        + table(("claim", "", "published", "ours", "difference", "at equal length", "verdict"), verdicts)
        + "\n"
        + table(("what it costs", "images", "tokens", "recall", "F1", "repetition", "recall, equal length",
                 "F1, equal length"), costs)
    )  # fmt: skip


def _closed(answers: Answers) -> str:
    parts = ["## Yes/no answers, and POPE's labels corrected\n"]
    pope = {name: scored for name, scored in answers.scored.items() if scored.benchmark == "repope"}
    if pope:
        shown = ("accuracy", "balanced_accuracy", "f1", "yes_ratio")
        rows = [
            (name, title, *(_estimate(table_[figure]) for figure in shown))
            for name, scored in pope.items() for title, table_ in figures(scored).items()
        ]  # fmt: skip
        parts.append(table(("answers", "split", "accuracy", "balanced", "F1", "yes"), rows))
        parts.append(
            "\nRePOPE leaves ambiguous questions out and corrects wrong labels; both readings are by the same reader. "
            "The released answers have no plain ones beside them, so that they rank nothing.\n"
        )
    if answers.marine:
        rows = [
            (name, _both(one), _difference(one), one.verdict)
            for name, one in answers.marine.items()
        ]
        parts.append(
            "MARINE against plain answers, on adversarial questions about images of its own, for which RePOPE has no\n"
            "labels; read as POPE's program does; these p's stand for themselves:\n"
        )
        parts.append(table(("figure", "plain → MARINE", "difference", "verdict"), rows))
    others = {name: scored for name, scored in answers.scored.items() if scored.benchmark in ("mme", "dash-b")}
    if others:
        rows = []
        for name, scored in others.items():
            for title, found in figures(scored).items():
                for figure in ("score",) if scored.benchmark == "mme" else ("accuracy", "tnr", "tpr", "harmonic_mean"):
                    points = scored.benchmark == "mme"
                    known = PUBLISHED[name].get(title if points else figure)
                    ours = _points(found[figure]) if points else _estimate(found[figure])
                    label = f"{scored.benchmark} {title or figure}".strip()
                    rows.append((name, label, "–" if known is None else f"{known:.1f}", ours))
        parts += ["\nMME's hallucination part (at most 200 a task, 800 in all), and DASH-B:\n"]
        parts.append(table(("answers", "figure", "published", "ours"), rows))
    parts += [f"\n{note}" for note in answers.notes]
    return "\n".join(parts) if len(parts) > 1 else ""


def _left_out(skipped: Mapping[str, Sequence[str]], absent: Sequence[str]) -> str:
    rows = [(name, len(lines), lines[0].replace("|", "\\|")[:110]) for name, lines in skipped.items() if lines]
    if not rows and not absent:
        return ""
    text = "## Lines that could not be used\n\n"
    text += table(("file", "left out", "the first"), rows) if rows else ""
    return text + (f"\nAbsent, so that their pairs are not scored: {', '.join(absent)}.\n" if absent else "")


def _sources(files: Mapping[str, str]) -> str:
    used = {name for pair in claims()["pairs"] for name in (*pair["plain"], *pair["method"])} | set(PUBLISHED)
    places: dict[tuple[str, str, str], list[str]] = {}
    for name, about in index().items():
        key = about["repository"], about["commit"], about["licence"]
        places.setdefault(key, []).append(name)
    rows = [
        (repository, commit, licence, len(names), sum(name in used for name in names))
        for (repository, commit, licence), names in places.items()
    ]
    read = "\n".join(f"- {name}: `{digest}`" for name, digest in files.items())
    return (
        "## Where the files are\n\n" + table(("repository", "commit", "licence", "files", "in a pair"), rows)
        + "\nFiles without a method beside a plain one, such as POPE's own captions of five models, are fetched but "
        f"make no claim.\n\nGround truth and vocabulary, by SHA-256:\n\n{read}\n"
    )  # fmt: skip


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


def _pc(share: float) -> str:
    return f"{100 * share:.1f}"


def _both(one: Comparison) -> str:
    return f"{_pc(one.second)} → {_pc(one.first)}"


def _difference(one: Comparison) -> str:
    d = one.difference
    return f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def _moved(one: Comparison) -> str:
    mark = {"better": " ▲", "worse": " ▼"}.get(one.verdict, "")
    return f"{100 * one.difference.value:+.1f}{mark}"


def _estimate(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} [{estimate.low:.0f}, {estimate.high:.0f}]"


def _published(pair: Pair, figure: str) -> str:
    known = pair.published(figure)
    return "–" if known is None else f"{known[0]} → {known[1]}{' ✓' if pair.repeats(figure) else ''}"
