"""The cost of every method beside plain decoding: one table, docs/speed.md, from one command (`make bench`).

    python benchmarks/bench.py measure --model random-small --out runs/bench  # embedded, embedded-smollm2, random-7b
    python benchmarks/bench.py write --out runs/bench --to docs/speed.md

The yardstick is transformers' own `model.generate` (greedy, sdpa, dynamic cache) on the same model. Every figure is the
median ratio over interleaved pairs, with the smallest and the largest; greedy of this package stands in the table too.
Columns: prefill (one new token); ms per further token; a caption of 52 and of 128 tokens; questions, six about each
image in one batch, 4 tokens each, against one call of generate for each question; peak memory (accelerators alone).
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import curves
import torch
from naive import two_calls

import veridical
from models import OF_SCENES, QUESTIONS, SINKS, of_scenes, random_inputs, random_llava, scene_inputs
from veridical.decoders.diffusion import diffused
from veridical.flows.files import atomic
from veridical.flows.training.embedded.card import machine
from veridical.pipelines.model.load import CannotLoad

METHODS = [
    "greedy", "vcd", "icd", "m3id", "avc", "rbd", "var", "vhr", "vsv", "sla", "vista", "pai", "dola", "deco", "ritual",
    "sid", "vaf", "heads_guided", "spin",
]  # fmt: skip
SETTINGS: dict[str, list[Any]] = {  # where a model without a processor, or without sinks, needs other words
    "icd": ["icd:prefix_ids=(17,18,19,20,21,22,23,24,25,26)"], "var": ["var:tau=3,min_image=0,min_nonsink=0"],
}  # fmt: skip
GOALS = {  # whole caption of 52 tokens on random-small
    **dict.fromkeys(("greedy", "var", "vhr", "vsv", "sla", "vista", "vaf", "heads_guided", "spin"), 1.15),
    **dict.fromkeys(("vcd", "avc"), 1.40), **dict.fromkeys(("m3id", "pai", "icd"), 1.15),
}  # fmt: skip
NEEDS = {  # what a method cannot do without
    "vcd": "the noised image is a second prompt of full length, encoded and read by itself",
    "ritual": "the transformed image is a second prompt of full length",
    "avc": "tokens are blanked by the attention of the finished prompt, so that a second one is read behind the first",
    "vsv": "the vector comes from the prompt as it is and changes all of it, so that it is read twice",
    "vista": "the vectors come from the prompt as it is and change all of it, so that it is read twice",
    "vhr": "each layer's heads are chosen from the layer before, with and without the image, in rows of one length",
    "icd": "the second prompt differs from the end of the image on, and has a row in every pass",
    "m3id": "the prompt without its image is short, and has a row in every pass",
    "pai": "the prompt without its image is short, and has a row in every pass",
}
LENGTHS = (1, 52, 128)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Model:
    """A model of the table, its prompts, and one timed run of each kind."""

    def __init__(self, name: str, device: str, clock: str) -> None:
        self.name, self.device, self.clock = name, torch.device(device), CLOCKS[clock]
        if name in OF_SCENES:
            self.lvlm = of_scenes(name, device)
            self.inputs, self.questions = scene_inputs(self.lvlm)
        else:
            dtype = torch.float32 if device == "cpu" else torch.bfloat16
            self.lvlm = random_llava(name.removeprefix("random-"), device, dtype)
            self.inputs = random_inputs(self.lvlm, 1)
            self.questions = random_inputs(self.lvlm, 2 if device == "cpu" else 16, QUESTIONS)

    def plain(self, inputs: Any, tokens: int) -> None:
        self.lvlm.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def ours(self, decoders: Any, inputs: Any, tokens: int) -> None:
        veridical.generate(self.lvlm, inputs, decoders, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def one_by_one(self, tokens: int) -> None:
        rows = len(self.questions["input_ids"])
        for row in range(rows):
            self.plain({name: value[row : row + 1] for name, value in self.questions.items()}, tokens)

    def seconds(self, run: Callable[[], object]) -> float:
        self._wait()
        began = self.clock()
        run()
        self._wait()
        return self.clock() - began

    def peak(self, run: Callable[[], None]) -> float | None:
        if self.device.type != "cuda":
            return None
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run()
        self._wait()
        return torch.cuda.max_memory_allocated() / 2**20

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def ratio(
    model: Model, plain: Callable[[], object], ours: Callable[[], object], runs: int
) -> dict[str, float]:
    """Median, smallest and largest ratio of paired runs, which come first in turns, and the medians in seconds."""
    ours()
    pairs = []
    for turn in range(runs):
        order = (plain, ours) if turn % 2 else (ours, plain)
        times = {run: model.seconds(run) for run in order}
        pairs.append((times[plain], times[ours]))
    ratios = [mine / theirs for theirs, mine in pairs]
    return {
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "plain": statistics.median(p for p, _ in pairs), "seconds": statistics.median(m for _, m in pairs),
    }  # fmt: skip


def by_length(model: Model, ours: Callable[[int], object], options: argparse.Namespace) -> dict[str, Any]:
    """The ratio for each number of new tokens."""
    return {
        str(n): ratio(model, partial(model.plain, model.inputs, n), partial(ours, n), options.runs)
        for n in options.tokens
    }


def figures(model: Model, method: str, options: argparse.Namespace) -> dict[str, Any]:
    settings = {} if options.model == SINKS else SETTINGS
    decoders = [] if method == "greedy" else settings.get(method, [method])
    found = by_length(model, partial(model.ours, decoders, model.inputs), options)
    if method in options.questions:
        ours = partial(model.ours, decoders, model.questions, 4)
        found["questions"] = ratio(model, partial(model.one_by_one, 4), ours, options.runs)
    plain, mine = (model.peak(partial(run, 52)) for run in (
        partial(model.plain, model.inputs), partial(model.ours, decoders, model.inputs)
    ))  # fmt: skip
    if plain and mine:
        found["memory"] = mine / plain
    return found


def naive(model: Model, options: argparse.Namespace) -> dict[str, Any]:
    """What a second branch is compared with.

    The loop with two calls per token, with VCD's noised image and with the prompt without its image; and transformers'
    own generate with two rows of the prompt, the least that a branch of the image's length can cost on a machine.
    """
    others = {"noised image": diffused(model.inputs, 500, 0), "without the image": model.lvlm.image_free(model.inputs)}
    loops = {
        f"two calls per token, {name}": by_length(model, partial(two_calls, model.lvlm, model.inputs, other), options)
        for name, other in others.items()
    }
    twice = {name: value.repeat_interleave(2, 0) for name, value in model.inputs.items()}
    return loops | {"transformers' own, two rows": by_length(model, partial(model.plain, twice), options)}


def measure(options: argparse.Namespace) -> None:
    try:
        model = Model(options.model, options.device, options.clock)
    except CannotLoad as absent:
        print(f"{options.model} is left out: {absent}", flush=True)
        return
    path = Path(options.out) / f"{options.model}-{model.device.type}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = atomic.read_json(path) if path.exists() else {"methods": {}}
    name = torch.cuda.get_device_name() if model.device.type == "cuda" else machine()
    found |= {
        "machine": name, "threads": torch.get_num_threads(), "runs": options.runs, "clock": options.clock,
        "model": options.model, "dtype": str(model.lvlm.dtype).removeprefix("torch."), "torch": torch.__version__,
    }  # fmt: skip
    until = time.monotonic() + 60 * options.minutes
    for method in options.method or METHODS:
        if method in found["methods"] and not options.again:
            continue
        if time.monotonic() > until:
            print(f"{options.minutes:g} minutes are over: the same command goes on with {method}", flush=True)
            return
        found["methods"][method] = figures(model, method, options)
        ratios = {k: round(v["ratio"], 3) for k, v in found["methods"][method].items() if k != "memory"}
        print(method, json.dumps(ratios), flush=True)
        atomic.write_json(path, found)
    if "naive" not in found:
        found["naive"] = naive(model, options)
        atomic.write_json(path, found)


# -- the page ------------------------------------------------------------------------------------------------------
def cell(value: dict[str, float] | None) -> str:
    return "–" if value is None else f"{value['ratio']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def per_token(value: dict[str, Any]) -> str:
    """ms per further token, from the longest caption and from one token, and the same as a ratio to transformers'."""
    longest = max(int(n) for n in value if n.isdigit())
    mine, plain = ((value[str(longest)][key] - value["1"][key]) / (longest - 1) for key in ("seconds", "plain"))
    return f"{mine * 1000:.1f} (×{mine / plain:.2f})"


def table(found: dict[str, Any]) -> list[str]:
    clock = {"wall": "wall time", "cpu": "processor time"}[found["clock"]]
    machine = f"{found['machine']}, {found['threads']} threads, {found['dtype']}, torch {found['torch']}"
    lines = [f"## {found['model']}", "", f"{machine}; {clock}, {found['runs']} pairs each.", ""]
    lines += ["| method | prefill × | ms/token | caption of 52 × | goal | caption of 128 × | questions × | memory × |"]
    lines += ["|---" * 8 + "|"]
    goals = GOALS if found["model"] == "random-small" else {}
    rows = {**{f"`{name}`": value for name, value in found["methods"].items()}, **found.get("naive", {})}
    for name, value in rows.items():
        goal = goals.get(name.strip("`"))
        met = "–" if goal is None else f"{goal:.2f}: {'met' if value['52']['ratio'] <= goal else 'not met'}"
        memory = f"{value['memory']:.2f}" if "memory" in value else "–"
        cells = [cell(value["1"]), per_token(value), cell(value.get("52")), met, cell(value.get("128"))]
        lines.append(" | ".join([f"| {name}", *cells, cell(value.get("questions")), f"{memory} |"]))
    return [*lines, "", *why(found)]


def why(found: dict[str, Any]) -> list[str]:
    """Where the time of a caption of 52 tokens goes, from what was measured: the prompt's part and the tokens'."""
    lines = ["Where the time of a caption of 52 tokens goes beyond plain decoding:", ""]
    for name, value in found["methods"].items():
        if "52" not in value or name == "greedy":
            continue
        prompt = value["1"]["seconds"] - value["1"]["plain"]
        tokens = value["52"]["seconds"] - value["52"]["plain"] - prompt
        reason = NEEDS.get(name)
        lines.append(
            f"- `{name}`: {1000 * prompt:+.0f} ms before the first token, {1000 * tokens:+.0f} ms in 51 further ones"
            + (f"; {reason}" if reason else "") + "."
        )  # fmt: skip
    return [*lines, ""]


def write(options: argparse.Namespace) -> None:
    to = Path(options.to)
    by_hand = to.read_text(encoding="utf-8").partition("<!-- by hand -->")[2] if to.exists() else ""
    about = (__doc__ or "").split("\n\n", 2)[2].strip().splitlines()
    lines = ["# What each method costs", "", *about, ""]
    for path in sorted(Path(options.out).glob("*.json")):
        lines += table(atomic.read_json(path))
    lines += curves.section(Path(options.out), to.parent)
    to.write_text("\n".join(lines) + ("\n<!-- by hand -->" + by_hand if by_hand else ""), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "write"))
    parser.add_argument("--model", default="random-small", choices=(*OF_SCENES, "random-small", "random-7b"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: processor time, beside other programs")
    parser.add_argument("--tokens", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--questions", nargs="*", default=METHODS, help="methods that also answer questions")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no further method after these")
    parser.add_argument("--again", action="store_true", help="measure what is there already once more")
    parser.add_argument("--out", default="runs/bench")
    parser.add_argument("--to", default="docs/speed.md")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    (measure if options.step == "measure" else write)(options)


if __name__ == "__main__":
    main()
