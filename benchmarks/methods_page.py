"""Writes docs/methods.md from what benchmarks/methods_table.py measured: both models, and whether they agree.

    python benchmarks/methods_page.py --out runs/methods --to docs/methods.md

Settings that were not measured are left out. What a person wrote below the page's mark stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from methods_table import (
    CAPTIONS_ONLY,
    CHOSEN,
    FIRST,
    GREEDY,
    GRID,
    QUESTIONS_ONLY,
    SECOND,
    SECOND_SLOW,
    SECOND_SPLITS,
    SLOW,
    SPLITS,
    TIMES,
    figures,
    folder_of,
    settings,
)

from veridical.flows.evaluation.request import RESULTS
from veridical.flows.files import atomic
from veridical.flows.scoring import compare
from veridical.metrics import compare as metrics

INTRO = """# What each method does to the embedded model

Written by `benchmarks/methods_page.py` from runs of `benchmarks/methods_table.py`, whose answers are those of
`veridical evaluate`: greedy decoding, batches of 32. Captions: {captions:,} test scenes, at most 128 new tokens.
Questions: POPE's three splits on {scenes} test scenes, 3,006 questions. Intervals: 95 %, bootstrap by image;
differences from plain decoding are paired, and the verdicts of a column are tested together
([statistics](statistics.md)). "At equal length" both captions of an image are cut to as many words.
{timed}

*default*: the paper's defaults; `gate`, `drop` and `reask` are no paper's and have ours. *chosen*: of the settings
tried (below) the one with the lowest CHAIR_i on {tried} validation scenes among those that lose at most one point of
recall there; where none does, the one with the highest recall; of `mvp` and `flip`, which answer questions alone, the
one with the highest accuracy on the {asked} questions of {asking} validation scenes. *both*: the two are the same. The
rule saw no test scene; which settings were tried was decided after test figures of most methods at earlier settings
had been seen. Slow methods had fewer scenes, as stands beside them.

The tables are of `embedded`, one model of 6 M parameters in its own world: they show that each method acts and
what it costs, not what it does to your model. A method that makes this one worse stays in the table.{second}
"""
SECOND_NOTE = """
The second model, [`embedded-smollm2`](embedded_smollm2.md), has a pretrained language model;
its tables follow, and [whether the two agree](#do-the-two-models-agree)."""
SECOND_INTRO = """## The second model: embedded-smollm2

SmolLM2-135M behind the same vision tower ([card](../models/embedded_smollm2/README.md)), in bfloat16, on the first
{captions} test scenes{more}. Nothing was chosen on this model: *default* as above, *chosen* is the setting that was
chosen on `embedded`. Settings that are not in its tables were not measured on it.
"""
AGREE_INTRO = """## Do the two models agree?

Differences from plain decoding at the same setting, the first model's on its {captions:,} scenes, the second's on its
own. *same* or *opposite*: the signs of two differences that are both outside the noise of their columns above. A sign
in brackets is that of the point estimates where one or both are inside it.
"""
CAPTIONS = (
    "| setting | is | CHAIR_s ↓ | CHAIR_i ↓ | recall ↑ | CHAIR_i − greedy's | the same at equal length | words | "
    "repetition |"
)
QUESTIONS = "| setting | is | accuracy ↑ | random ↑ | popular ↑ | adversarial ↑ | F1 ↑ | yes | adversarial − greedy's |"
ACCURACIES = ("accuracy", "random_accuracy", "popular_accuracy", "adversarial_accuracy", "f1")
COLUMNS = {  # heading -> benchmark, table, figure
    "CHAIR_i": ("chair", "", "chair_i"), "CHAIR_i at equal length": ("chair", "at equal length", "chair_i"),
    "recall": ("chair", "", "recall"), "adversarial accuracy": ("pope", "adversarial", "accuracy"),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A setting of a method in a table; label: "default", "chosen" or "both"."""

    method: str
    setting: str
    label: str


def measured(out: Path, benchmark: str, model: str) -> list[Row]:
    """The settings with figures on a benchmark's test scenes."""
    unable = {"chair": QUESTIONS_ONLY, "pope": CAPTIONS_ONLY}[benchmark]
    rows = [Row(*row) for row in settings(out, list(GRID)) if row[0] not in unable]
    return [row for row in rows if (folder_of(out, row.setting, "test", benchmark, model) / RESULTS).exists()]


@cache
def differences(out: Path, benchmark: str, model: str) -> Mapping[str, Mapping[str, Any]]:
    """heading -> setting -> its comparison with plain decoding; verdicts of one column hold together."""
    (plain,) = compare.of_folder(folder_of(out, GREEDY, "test", benchmark, model))
    found = {}
    for row in measured(out, benchmark, model):
        if row.setting != GREEDY:
            (mine,) = compare.of_folder(folder_of(out, row.setting, "test", benchmark, model))
            found[row.setting] = compare.pair(plain, mine).tables
    columns = {}
    for heading, (of, title, figure) in COLUMNS.items():
        if of == benchmark:
            judged = metrics.together([tables[title][figure] for tables in found.values()])
            columns[heading] = dict(zip(found, judged, strict=True))
    return columns


def interval(figure: dict[str, float] | None) -> str:
    return "–" if figure is None else f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def difference(found: Any) -> str:
    if found is None:
        return "–"
    d = found.difference
    return f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] {found.verdict}"


def few(row: Row, benchmark: str, model: str) -> str:
    """The label, and the number of scenes where it is smaller than the others'."""
    count = (SLOW if model == FIRST else SECOND_SLOW).get((row.method, benchmark))
    return row.label if count is None else f"{row.label}, first {count} scenes"


def captions(out: Path, model: str, times: Mapping[str, Any]) -> list[str]:
    """The table of captions; a column of seconds where times are given."""
    columns = differences(out, "chair", model)
    lines = [CAPTIONS + (" s/image |" if times else ""), "|---" * (9 + bool(times)) + "|"]
    for row in measured(out, "chair", model):
        f = figures(folder_of(out, row.setting, "test", "chair", model))
        cells = [
            f"`{row.setting}`", few(row, "chair", model),
            *(interval(f[key]) for key in ("chair_s", "chair_i", "recall")),
            *(difference(columns[key].get(row.setting)) for key in ("CHAIR_i", "CHAIR_i at equal length")),
            f"{f['length']['value']:.1f}", f"{f['repetition']['value']:.3f}",
        ]  # fmt: skip
        if times:
            took = times["seconds"].get(row.setting)
            cells.append("–" if took is None else f"{took['median']:.3f} (×{took['ratio']:.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def questions(out: Path, model: str) -> list[str]:
    """The table of questions."""
    column = differences(out, "pope", model)["adversarial accuracy"]
    lines = [QUESTIONS, "|---" * 9 + "|"]
    for row in measured(out, "pope", model):
        f = figures(folder_of(out, row.setting, "test", "pope", model))
        cells = [
            f"`{row.setting}`", few(row, "pope", model), *(interval(f.get(key)) for key in ACCURACIES),
            f"{f['yes_ratio']['value']:.3f}", difference(column.get(row.setting)),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def agreement(first: Any, second: Any) -> str:
    """ "same" or "opposite" of two differences outside the noise; in brackets where one is inside it.

    "(none)": one of them is exactly zero.
    """
    product = first.difference.value * second.difference.value
    word = "same" if product > 0 else "opposite" if product < 0 else "none"
    firm = "inside the noise" not in (first.verdict, second.verdict)
    return word if firm else f"({word})"


def agreements(out: Path) -> list[str]:
    """The table of both models' differences, and how many of them have the same sign."""
    found = {
        heading: (differences(out, of, FIRST)[heading], differences(out, of, SECOND)[heading])
        for heading, (of, _, _) in COLUMNS.items() if measured(out, of, SECOND)
    }  # fmt: skip
    shared = [
        row for row in dict.fromkeys(measured(out, "chair", SECOND) + measured(out, "pope", SECOND))
        if row.setting != GREEDY and any(row.setting in a and row.setting in b for a, b in found.values())
    ]  # fmt: skip
    head = "".join(f" {heading}: first | second | sign |" for heading in found)
    lines = [f"| setting |{head}", "|---" * (1 + 3 * len(found)) + "|"]
    for row in shared:
        cells = [f"`{row.setting}`"]
        for a, b in found.values():
            one, two = a.get(row.setting), b.get(row.setting)
            if one is None or two is None:
                cells += ["–"] * 3
            else:
                cells += [f"{one.difference.value:+.3f}", f"{two.difference.value:+.3f}", agreement(one, two)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Of the settings that were measured on both models:", ""]
    for heading, (a, b) in found.items():
        signs = [agreement(a[setting], b[setting]) for setting in a if setting in b]
        firm = signs.count("same") + signs.count("opposite")
        lines.append(
            f"- {heading}: {len(signs)} settings; outside the noise on both models {firm}, of which "
            f"{signs.count('same')} have the same sign; of all others {signs.count('(same)')} have the same sign, "
            f"{signs.count('(opposite)')} opposite ones, {signs.count('(none)')} do nothing on one of the models."
        )
    return lines


def tried(out: Path) -> list[str]:
    """The table of the settings that were tried on validation scenes."""
    chosen = atomic.read_json(out / CHOSEN)
    lines = ["| setting | CHAIR_i | recall | accuracy | chosen |", "|---" * 5 + "|"]
    for one in [chosen[name] for name in GRID if name in chosen]:
        for setting, value in one["settings"].items():
            mark = "yes" if setting == one["chosen"] else ""
            cells = [f"{value[key]:.3f}" if key in value else "–" for key in ("chair_i", "recall", "accuracy")]
            lines.append(" | ".join([f"| `{setting}`", *cells, f"{mark} |"]))
    return lines


def page(out: Path) -> str:
    times = atomic.read_json(out / TIMES) if (out / TIMES).exists() else {}
    timed = (
        f"Seconds per image are processor time of {times['machine']}, batches of 16, median of {times['runs']}\n"
        "runs paired with plain decoding (× is the median ratio)."
    ) if times else ""  # fmt: skip
    both = bool(measured(out, "chair", SECOND))
    asking, second = SPLITS["validation", "pope"], SECOND_SPLITS["test", "pope"]
    counts = {
        "captions": SPLITS["test", "chair"], "scenes": SPLITS["test", "pope"], "tried": SPLITS["validation", "chair"],
        "asking": asking, "asked": 18 * asking,
    }  # fmt: skip
    lines = [
        INTRO.format(timed=timed, second=SECOND_NOTE if both else "", **counts),
        "## Captions", "", *captions(out, FIRST, times), "", "## Questions", "", *questions(out, FIRST), "",
    ]  # fmt: skip
    if both:
        answered = bool(measured(out, "pope", SECOND))
        more = f" and the {18 * second:,} questions of the first {second}" if answered else ""
        lines += [
            SECOND_INTRO.format(captions=SECOND_SPLITS["test", "chair"], more=more),
            "### Captions of the second model", "", *captions(out, SECOND, {}), "",
            *(["### Answers of the second model", "", *questions(out, SECOND), ""] if answered else []),
            AGREE_INTRO.format(captions=counts["captions"]), *agreements(out), "",
        ]  # fmt: skip
    return "\n".join([*lines, "## What was tried on validation scenes", "", *tried(out)]) + "\n"


def write(out: Path, to: Path) -> None:
    """The page, over what a person wrote below its mark, which stays."""
    mark = "<!-- by hand -->"
    by_hand = to.read_text(encoding="utf-8").partition(mark)[2] if to.exists() else ""
    to.write_text(page(out) + (f"\n{mark}{by_hand}" if by_hand else ""), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--to", type=Path, default=Path("docs/methods.md"))
    arguments = parser.parse_args()
    write(arguments.out, arguments.to)


if __name__ == "__main__":
    main()
