"""Writes docs/methods.md: both models, and whether they agree.

    python benchmarks/methods_page.py --out runs/methods    # what benchmarks/methods_table.py measured, if anything new
    python benchmarks/methods_page.py                       # from docs/methods.json alone

The page's tables come from docs/methods.json (methods_record.py), into which results go first. Settings that were never
measured are left out. What a person wrote below the page's mark stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import methods_record as records
from methods_record import COLUMNS, Difference, Record
from methods_table import FIRST, GREEDY, GRID, RECORD, SECOND, SECOND_SLOW, SECOND_SPLITS, SLOW, SPLITS, labelled

INTRO = """# What each method does to the embedded model

Written by `benchmarks/methods_page.py` from runs of `benchmarks/methods_table.py`, whose answers are those of
`veridical evaluate`: greedy decoding, batches of 32. Captions: {captions:,} test scenes, at most 128 new tokens.
Questions: POPE's three splits on {scenes} test scenes, 3,006 questions. Intervals: 95 %, bootstrap by image;
differences from plain decoding are paired, and the verdicts of a column are tested together, those of one time of
measurement ([statistics](statistics.md)). "At equal length" both captions of an image are cut to as many words.
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

SmolLM2-135M behind the same vision tower ([card](../models/embedded_smollm2/README.md)), on the first {captions} test
scenes{more}; captions in bfloat16, answers in float32 ([why](statistics.md#ties-of-a-model-in-half-precision)). Nothing
was chosen on this model: *default* as above, *chosen* is the setting that was chosen on `embedded`. Settings that are
not in its tables were not measured on it.
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


def interval(figure: Sequence[float] | None) -> str:
    return "–" if figure is None else "{:.3f} [{:.3f}, {:.3f}]".format(*figure)


def difference(found: Difference | None) -> str:
    return "–" if found is None else f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] {found.verdict}"


def labels(record: Record, benchmark: str, model: str) -> dict[str, str]:
    """setting -> its label, and the number of scenes where it is smaller than the others'."""
    slow = SLOW if model == FIRST else SECOND_SLOW
    return {
        setting: label + (f", first {slow[name, benchmark]} scenes" if (name, benchmark) in slow else "")
        for name, setting, label in labelled(record["tried"])
    }


def captions(record: Record, model: str) -> list[str]:
    """The table of captions; a column of seconds where they were measured."""
    columns = {key: records.column(record, model, key) for key in ("CHAIR_i", "CHAIR_i at equal length")}
    times = record.get("times", {}) if model == FIRST else {}
    label = labels(record, "chair", model)
    lines = [CAPTIONS + (" s/image |" if times else ""), "|---" * (9 + bool(times)) + "|"]
    for setting, row in records.rows(record, model, "chair").items():
        f = row["figures"]
        cells = [
            f"`{setting}`", label[setting], *(interval(f[key]) for key in ("chair_s", "chair_i", "recall")),
            *(difference(column.get(setting)) for column in columns.values()),
            f"{f['length'][0]:.1f}", f"{f['repetition'][0]:.3f}",
        ]  # fmt: skip
        if times:
            took = times["seconds"].get(setting)
            cells.append("–" if took is None else f"{took['median']:.3f} (×{took['ratio']:.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def questions(record: Record, model: str) -> list[str]:
    """The table of questions."""
    column, label = records.column(record, model, "adversarial accuracy"), labels(record, "pope", model)
    lines = [QUESTIONS, "|---" * 9 + "|"]
    for setting, row in records.rows(record, model, "pope").items():
        f = row["figures"]
        cells = [
            f"`{setting}`", label[setting], *(interval(f.get(key)) for key in ACCURACIES),
            f"{f['yes_ratio'][0]:.3f}", difference(column.get(setting)),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def agreement(first: Difference, second: Difference) -> str:
    """ "same" or "opposite" of two differences outside the noise; in brackets where one is inside it.

    "(none)": one of them is exactly zero.
    """
    product = first.value * second.value
    word = "same" if product > 0 else "opposite" if product < 0 else "none"
    firm = "inside the noise" not in (first.verdict, second.verdict)
    return word if firm else f"({word})"


def agreements(record: Record) -> list[str]:
    """The table of both models' differences, and how many of them have the same sign."""
    found = {
        heading: (records.column(record, FIRST, heading), records.column(record, SECOND, heading))
        for heading in COLUMNS
    }
    found = {heading: pair for heading, pair in found.items() if pair[1]}
    shared = [
        setting for _, setting, _ in labelled(record["tried"])
        if setting != GREEDY and any(setting in a and setting in b for a, b in found.values())
    ]  # fmt: skip
    head = "".join(f" {heading}: first | second | sign |" for heading in found)
    lines = [f"| setting |{head}", "|---" * (1 + 3 * len(found)) + "|"]
    for setting in shared:
        cells = [f"`{setting}`"]
        for a, b in found.values():
            one, two = a.get(setting), b.get(setting)
            if one is None or two is None:
                cells += ["–"] * 3
            else:
                cells += [f"{one.value:+.3f}", f"{two.value:+.3f}", agreement(one, two)]
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


def tried(record: Record) -> list[str]:
    """The table of the settings that were tried on validation scenes."""
    chosen = record["tried"]
    lines = ["| setting | CHAIR_i | recall | accuracy | chosen |", "|---" * 5 + "|"]
    for one in [chosen[name] for name in GRID if name in chosen]:
        for setting, value in one["settings"].items():
            mark = "yes" if setting == one["chosen"] else ""
            cells = [f"{value[key]:.3f}" if key in value else "–" for key in ("chair_i", "recall", "accuracy")]
            lines.append(" | ".join([f"| `{setting}`", *cells, f"{mark} |"]))
    return lines


def page(record: Record) -> str:
    times: dict[str, Any] = record.get("times", {})
    timed = (
        f"Seconds per image are processor time of {times['machine']}, batches of 16, median of {times['runs']}\n"
        "runs paired with plain decoding (× is the median ratio)."
    ) if times else ""  # fmt: skip
    both = bool(records.rows(record, SECOND, "chair"))
    asking, second = SPLITS["validation", "pope"], SECOND_SPLITS["test", "pope"]
    counts = {
        "captions": SPLITS["test", "chair"], "scenes": SPLITS["test", "pope"], "tried": SPLITS["validation", "chair"],
        "asking": asking, "asked": 18 * asking,
    }  # fmt: skip
    lines = [
        INTRO.format(timed=timed, second=SECOND_NOTE if both else "", **counts),
        "## Captions", "", *captions(record, FIRST), "", "## Questions", "", *questions(record, FIRST), "",
    ]  # fmt: skip
    if both:
        answered = bool(records.rows(record, SECOND, "pope"))
        more = f" and the {18 * second:,} questions of the first {second}" if answered else ""
        lines += [
            SECOND_INTRO.format(captions=SECOND_SPLITS["test", "chair"], more=more),
            "### Captions of the second model", "", *captions(record, SECOND), "",
            *(["### Answers of the second model", "", *questions(record, SECOND), ""] if answered else []),
            AGREE_INTRO.format(captions=counts["captions"]), *agreements(record), "",
        ]  # fmt: skip
    return "\n".join([*lines, "## What was tried on validation scenes", "", *tried(record)]) + "\n"


def written(record: Record, before: str = "") -> str:
    """The page, over what a person wrote below its mark, which stays."""
    mark = "<!-- by hand -->"
    by_hand = before.partition(mark)[2]
    return page(record) + (f"\n{mark}{by_hand}" if by_hand else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="results, which go into the record first")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--to", type=Path, default=RECORD.with_suffix(".md"))
    arguments = parser.parse_args()
    record = records.read(arguments.record)
    if arguments.out is not None:
        for row in records.add(record, arguments.out):
            print(row)
        records.write(arguments.record, record)
    before = arguments.to.read_text(encoding="utf-8") if arguments.to.exists() else ""
    arguments.to.write_text(written(record, before), encoding="utf-8")


if __name__ == "__main__":
    main()
