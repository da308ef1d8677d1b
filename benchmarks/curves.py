"""How the cost of a method goes with the batch, the prompt's length, and the questions about one image.

    python benchmarks/curves.py --out runs/bench     # about 6 minutes on one thread; the same command goes on
    python benchmarks/bench.py write --out runs/bench --to docs/speed.md

A LLaVA of random weights (6 layers, 256 hidden). Every figure is the median ratio to transformers' own
`model.generate` on the same prompts over interleaved pairs, with the smallest and the largest; questions about one
image are compared with one call of generate for each. Beside it stand milliseconds per text.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import veridical
from models import PATCHES, QUESTION, random_inputs, random_llava
from veridical.flows.files import atomic
from veridical.flows.training.embedded.card import machine

METHODS = {
    "greedy": "plain", "sla": "one branch", "vcd": "two branches", "m3id": "a second prompt without the image",
}  # fmt: skip
BATCHES, QUESTIONS = (1, 4, 8, 16), (1, 2, 6, 12)
LENGTHS = {144: (144, 0), 576: (576, 0), 1152: (576, 576), 2304: (2304, 0)}  # image tokens, and further text
TITLES = {
    "batch": "captions in a batch", "length": "tokens beside the question (1,152: half of them text)",
    "questions": "questions about one image",
}  # fmt: skip
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
FOLDER, PLOT = "curves", "curves.svg"


def runs_of(tokens: int) -> dict[str, dict[int, tuple[Callable[[str], Any], Callable[[], Any], int]]]:
    """By curve and point: a method's run, transformers' own, and how many texts either makes."""
    models = {patches: random_llava("tiny", patches=patches) for patches in {one for one, _ in LENGTHS.values()}}
    often = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}

    def ours(lvlm: veridical.LVLM, inputs: Any, method: str) -> None:
        veridical.generate(lvlm, inputs, [] if method == "greedy" else [method], **often)

    def theirs(lvlm: veridical.LVLM, calls: list[Any]) -> None:
        for inputs in calls:
            lvlm.model.generate(**inputs, **often)

    def both(lvlm: veridical.LVLM, inputs: Any, apart: bool = False) -> tuple[Any, Any, int]:
        rows = len(inputs["input_ids"])
        one = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(rows)]
        return partial(ours, lvlm, inputs), partial(theirs, lvlm, one if apart else [inputs]), rows

    usual = models[PATCHES]
    return {
        "batch": {size: both(usual, random_inputs(usual, size)) for size in BATCHES},
        "length": {
            length: both(models[patches], random_inputs(models[patches], 1, words=QUESTION + more))
            for length, (patches, more) in LENGTHS.items()
        },
        "questions": {count: both(usual, random_inputs(usual, 1, count), apart=True) for count in QUESTIONS},
    }


def measured(ours: Callable[[], Any], theirs: Callable[[], Any], texts: int, runs: int, clock: str) -> dict[str, float]:
    """Ratio of pairs, either side first in turns, and milliseconds per text."""
    ours()
    pairs = []
    for turn in range(runs):
        times = {}
        for side in (theirs, ours) if turn % 2 else (ours, theirs):
            began = CLOCKS[clock]()
            side()
            times[side] = CLOCKS[clock]() - began
        pairs.append((times[theirs], times[ours]))
    ratios = [mine / plain for plain, mine in pairs]
    return {
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "ms": 1000 * statistics.median(mine for _, mine in pairs) / texts,
    }  # fmt: skip


def measure(options: argparse.Namespace) -> None:
    path = Path(options.out) / FOLDER / "curves.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "machine": machine(), "threads": torch.get_num_threads(), "runs": options.runs, "clock": options.clock,
        "tokens": options.tokens, "torch": torch.__version__,
    }  # fmt: skip
    found: dict[str, Any] = atomic.read_json(path) if path.exists() else {}
    if found.get("about") != about:  # figures of other settings are measured anew
        found = {"about": about, "curves": {}}
    for curve, points in runs_of(options.tokens).items():
        for point, (ours, theirs, texts) in points.items():
            there = found["curves"].setdefault(curve, {}).setdefault(str(point), {})
            for method in [one for one in METHODS if one not in there]:
                there[method] = measured(partial(ours, method), theirs, texts, options.runs, options.clock)
                print(curve, point, method, round(there[method]["ratio"], 3), flush=True)
                atomic.write_json(path, found)


# -- the page ------------------------------------------------------------------------------------------------------
def section(out: Path, docs: Path) -> list[str]:
    """The part of the page, and its figure beside it; nothing where nothing was measured."""
    path = out / FOLDER / "curves.json"
    if not path.exists():
        return []
    found = atomic.read_json(path)
    about, curves = found["about"], found["curves"]
    clock = {"wall": "wall time", "cpu": "processor time"}[about["clock"]]
    lines = ["## Batch, prompt and questions", "", *(__doc__ or "").split("\n\n")[2].strip().splitlines(), ""]
    lines += [
        f"{about['machine']}, {about['threads']} threads, float32, torch {about['torch']}; {clock}, {about['runs']} "
        f"pairs each, {about['tokens']} new tokens. A caption has a prompt of 576 image tokens and 30 words.", "",
        f"![Ratio to transformers by batch, prompt length and questions per image]({PLOT})", "",
    ]  # fmt: skip
    for curve, points in curves.items():
        heads = " | ".join(f"`{name}`: {what}" for name, what in METHODS.items())
        lines += [f"| {TITLES[curve]} | {heads} |", "|---" * (1 + len(METHODS)) + "|"]
        for point, values in points.items():
            cells = " | ".join(_cell(values.get(name)) for name in METHODS)
            lines.append(f"| {int(point):,} | {cells} |")
        lines.append("")
    _plot(curves, docs / PLOT)
    return lines


def _cell(value: dict[str, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value['ratio']:.2f} [{value['low']:.2f}, {value['high']:.2f}], {value['ms']:.0f} ms"


def _plot(curves: dict[str, Any], to: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "curves"  # the same figures give the same file
    figure = Figure(figsize=(9, 3), layout="constrained")
    for ax, (curve, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for method in METHODS:
            known = [(int(point), values[method]["ratio"]) for point, values in points.items() if method in values]
            ax.plot(*zip(*known, strict=True), marker="o", markersize=3, label=method)
        ax.axhline(1, color="grey", linewidth=0.5)
        ax.set(xlabel=TITLES[curve].partition(" (")[0], ylim=(0, None), xscale="log", xticks=[*map(int, points)])
        ax.set_xticklabels(list(points))
        ax.minorticks_off()
    figure.axes[0].set_ylabel("time ÷ transformers' generate")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(to, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/bench")
    parser.add_argument("--runs", type=int, default=3, help="pairs of each figure")
    parser.add_argument("--tokens", type=int, default=16, help="new tokens of a text")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: processor time, beside other programs")
    warnings.filterwarnings("ignore", category=UserWarning)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
