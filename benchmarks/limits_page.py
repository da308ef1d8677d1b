"""docs/limits.md with its curves, from a folder of `veridical evaluate --benchmark limits`.

    veridical evaluate --benchmark limits -d greedy -d m3id -d avc -d vcd --limit 80 --out runs/limits
    python benchmarks/limits_page.py runs/limits --to docs/limits.md

Needs matplotlib (the extra `plots`). Nothing is measured here.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.datasets.limits.scenes import LEVELS
from veridical.flows.benchmarks.limits import level_name
from veridical.flows.evaluation.request import RESULTS, Evaluation
from veridical.flows.evaluation.text import interval, markdown_table
from veridical.flows.files import atomic
from veridical.flows.scoring import compare
from veridical.plots import limit_curve
from veridical.plots.axis import require

BY_HAND = "\n<!-- by hand -->\n"
DRAWN = ("accuracy", "false_alarm_rate", "caption_recall", "chair_i")
TITLES = {
    "accuracy": "accuracy, yes/no", "false_alarm_rate": "false alarms", "caption_recall": "named in the caption",
    "chair_i": "CHAIR_i", "count_accuracy": "number right",
}  # fmt: skip
AXES = {
    "size": "longest side, pixels of 192", "place": "way from the middle to the border",
    "number": "objects of the kind",
    "occlusion": "share behind the panel", "distractors": "other objects", "background": "the place it shows",
}  # fmt: skip
INTRO = """# The limits of perception

Written by `benchmarks/limits_page.py` from the results of

<!-- not run: needs hours, {answers:,} answers by each decoder -->
```bash
{command}
```

Each of {scenes} scenes of the embedded world is drawn in 23 settings that differ in one thing: the size of the object
in its middle, the place of the object, the share of it behind a grey panel, the number of objects of its kind, the
number of others, or the background (of a place where the object is typical, or of one where it is never found). About
every image there are two questions, whether the object is there (it is) and whether one is there that one would expect
beside it (it is not), and a caption. What is true is known exactly, and the two objects are the same in all settings of
a scene, so that settings are compared in pairs. Intervals: 95 %, scenes resampled with all their settings; n = {scenes}
scenes throughout.

*accuracy*: yes/no questions that are right; ½ is what a constant answer reaches. *false alarms*: "yes" to what is not
there. *named*: captions that mention the object. *CHAIR_i*: mentions of what is not there, of all mentions.

![Figures by size, place, occlusion, number, distractors and background, a line per decoder]({image})
"""


def ordered(factor: str) -> list[Any]:
    levels = list(LEVELS[factor])
    return levels if isinstance(levels[0], str) else sorted(levels)


def cells(metrics: Mapping[str, Any], factor: str, figure: str) -> list[Mapping[str, float]]:
    return [metrics[f"{factor}_{figure}_{level_name(level)}"] for level in ordered(factor)]


def svg(results: Sequence[Mapping[str, Any]]) -> str:
    """A row per factor, a column per figure, a line per decoder with its intervals."""
    require()
    import matplotlib
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 2.3 * len(LEVELS) + 0.5), layout="constrained")
    axes = drawn.subplots(len(LEVELS), len(DRAWN), sharey="col")
    for row, factor in enumerate(LEVELS):
        for column, figure in enumerate(DRAWN):
            ax = limit_curve(results, factor, figure, axes[row][column])
            ax.tick_params(labelsize=7)
            ax.set_xlabel(AXES[factor], fontsize=8)
            ax.set_ylabel("")
            if row == 0:
                ax.set_title(TITLES[figure], fontsize=10)
    handles = axes[0][0].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside lower center", ncols=len(results), frameon=False, fontsize=9)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "veridical", "svg.fonttype": "none"}):
        drawn.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def tables(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every factor with plain decoding's figures and paired changes, and every decoder's accuracy and CHAIR_i."""
    out: list[str] = []
    plain = results[0]["metrics"]
    for factor in LEVELS:
        figures = [*DRAWN, "count_accuracy"] if factor == "number" else list(DRAWN)
        out += [f"## {factor}: {AXES[factor]}", "", f"`{results[0]['decoder']}`, and in brackets below each figure its "
                f"change against {level_name(LEVELS[factor][0])}, paired by scene.", ""]  # fmt: skip
        rows = []
        for level in ordered(factor):
            name, row = level_name(level), [level_name(level)]
            for figure in figures:
                change = plain.get(f"{factor}_{figure}_change_{name}")
                shown = interval(plain[f"{factor}_{figure}_{name}"], ".2f")
                row.append(shown if change is None else f"{shown}<br>({interval(change, '+.2f')})")
            rows.append(row)
        out += [markdown_table([factor, *(TITLES[figure] for figure in figures)], rows), ""]
        others = [
            [f"`{record['decoder']}`", TITLES[figure],
             *(interval(one, ".2f") for one in cells(record["metrics"], factor, figure))]
            for figure in (("accuracy", "chair_i", "count_accuracy") if factor == "number" else ("accuracy", "chair_i"))
            for record in results
        ]  # fmt: skip
        out += [markdown_table(["decoder", "figure", *map(level_name, ordered(factor))], others), ""]
    return out


def verdicts(run: Path) -> list[str]:
    """What `veridical compare` ranks, all verdicts together."""
    out = ["## Decoders against plain decoding", ""]
    for one in compare.against_first(compare.of_folder(run)):
        better = [name for title, table in one.tables.items() for figure, c in table.items()
                  if c.verdict == "better" for name in [f"{title} {figure}".strip()]]  # fmt: skip
        worse = [name for title, table in one.tables.items() for figure, c in table.items()
                 if c.verdict == "worse" for name in [f"{title} {figure}".strip()]]  # fmt: skip
        count = sum(len(table) for table in one.tables.values())
        text = [f"{word}: {', '.join(names)}" for word, names in (("better", better), ("worse", worse)) if names]
        out.append(f"- `{one.system.method}`: {'; '.join(text) or 'nothing'} ({count} figures compared).")
    return [*out, "", "Verdicts are those of `veridical compare`, tested together (docs/statistics.md)."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", type=Path, default=Path("docs/limits.md"))
    options = parser.parse_args()
    results = [one for one in atomic.read_json(options.run / RESULTS) if one["benchmark"] == "limits"]
    request = Evaluation.read(options.run)
    decoders = " ".join(f"-d {one['decoder']}" for one in results)
    image = options.to.with_suffix(".svg")
    scenes = request.source.limit
    command = f"veridical evaluate --benchmark limits {decoders} --limit {scenes} --out runs/limits"
    answers = results[0]["answers"]
    head = INTRO.format(command=command, scenes=scenes, image=image.name, answers=answers)
    there = options.to.read_text(encoding="utf-8") if options.to.exists() else ""
    behind = there.partition(BY_HAND)[2]
    atomic.write_text(image, svg(results))
    text = "\n".join([head, *tables(results), *verdicts(options.run)]) + "\n"
    atomic.write_text(options.to, text + (BY_HAND + behind if behind else ""))


if __name__ == "__main__":
    main()
