"""Every method on the embedded models, as its paper has it and at a strength chosen on other scenes: docs/methods.md.

    python benchmarks/methods_table.py choose  --out runs/methods    # validation scenes: settings of GRID
    python benchmarks/methods_table.py measure --out runs/methods    # test scenes: CHAIR and POPE
    python benchmarks/methods_table.py time    --out runs/methods    # with one thread: processor seconds per image
    python benchmarks/methods_table.py measure --out runs/methods --model embedded-smollm2 --which default
    python benchmarks/methods_page.py --out runs/methods --to docs/methods.md

Answers are those of what `veridical evaluate` runs, a folder per setting; stopped, it goes on where it was. Chosen is
the setting with the lowest CHAIR_i on the validation scenes among those that lose at most one point of recall there;
where none does, the one with the highest recall; of what answers questions alone, the one with the highest accuracy.

MARINE's objects are those of the shipped matcher, in OBJECTS, which is written once:

    veridical data world --split validation --count 300 --out runs/v; veridical data world --count 1000 --out runs/t
    veridical objects runs/[vt]/*/*.png --by embedded --threshold 0.2 --out runs/objects.jsonl \\
        --names "$(python -c 'from veridical.datasets.world import CATEGORIES; print(",".join(CATEGORIES))')"
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from veridical.datasets.captions import DETAIL_PROMPT
from veridical.datasets.world import scene
from veridical.flows.benchmarks.base import Source
from veridical.flows.evaluation import answer_file, steps
from veridical.flows.evaluation.request import RESULTS, Evaluation
from veridical.flows.files import atomic
from veridical.flows.training.card import machine
from veridical.pipelines.chain import chain
from veridical.pipelines.model.spec import ModelSpec, load

GREEDY, RECALL_LOSS = "greedy", 0.01
OBJECTS = "runs/objects.jsonl"
LENS, P_TRUE = "detector='lookback_lens'", "detector='p_true:form=object'"
GRID: dict[str, list[str]] = {
    GREEDY: [GREEDY],
    "vcd": ["vcd", "vcd:alpha=0.25", "vcd:alpha=0.1"],
    "icd": ["icd", "icd:alpha=0.25", "icd:alpha=0.1"],
    "m3id": ["m3id", "m3id:gate=0.5", "m3id:lam=0.1,gate=0.5"],
    "avc": ["avc", "avc:alpha=0.5", "avc:alpha=0.1"],
    "agla": ["agla", "agla:alpha=0.5", "agla:alpha=0.1"],
    "rbd": ["rbd", "rbd:visual=0.25,textual=0.25", "rbd:visual=0.1,textual=0.1"],
    "var": ["var", "var:tau=4.3"],
    "vhr": ["vhr", "vhr:alpha=1.25"],
    "vsv": ["vsv", "vsv:strength=0.05", "vsv:strength=0.02"],
    "sla": ["sla", "sla:gamma=0.1", "sla:gamma=0.05"],
    "vista": ["vista", "vista:strength=0.05", "vista:strength=0.02,gamma=0.1"],
    "pai": ["pai", "pai:gamma=1", "pai:alpha=0.05,gamma=1"],
    "dola": ["dola", "dola:layers='high'"],
    "deco": ["deco", "deco:alpha=0.4", "deco:alpha=0.2"],
    "imbalanced": ["imbalanced", "imbalanced:gamma=1", "imbalanced:local=0.1,summary=0.1,gamma=1"],
    "helpd": ["helpd", "helpd:weight=5", "helpd:weight=20"],
    "opera": ["opera", "opera:weight=0.25"],
    "ritual": ["ritual", "ritual:alpha=1", "ritual:alpha=0.25"],
    "sid": ["sid", "sid:alpha=0.25", "sid:alpha=0.1"],
    "code": ["code", "code:power=0.35"],
    "marine": [f"marine:objects='{OBJECTS}'", f"marine:gamma=0.3,objects='{OBJECTS}'"],
    "vaf": ["vaf", "vaf:boost=0.3", "vaf:boost=0.05,suppress=0.02"],
    "heads_guided": ["heads_guided", "heads_guided:alpha=0.2", "heads_guided:alpha=0.1"],
    "spin": ["spin", "spin:keep=0.8,factor=0.1", "spin:factor=0.5"],
    "nullu": ["nullu", "nullu:rank=8", "nullu:rank=1"],
    "adhh": ["adhh", "adhh:threshold=0.6"],
    "vti": ["vti", "vti:alpha=0.4", "vti:alpha=0.9,alpha_image=0.9"],
    "erase": ["erase", "erase:threshold=0.1"],
    "vicrop": ["vicrop", "vicrop:importance='grad_att'", "vicrop:importance='pure_grad'"],
    "mvp": ["mvp", "mvp:paths=5", "mvp:temperature=0"],
    "guided": [f"guided:{LENS}"],
    "gate": ["gate:decoder='vcd',detector='entropy',threshold=0.5", f"gate:decoder='vcd',{LENS},threshold=0.1"],
    "drop": [f"drop:{LENS},threshold={risk}" for risk in (0.5, 0.6, 0.7, 0.8)],
    "reask": [f"reask:{LENS},threshold={risk}" for risk in (0.5, 0.7)],
    "drop+m3id": [f"drop:{LENS},threshold={risk}+m3id:gate=0.5" for risk in (0.5, 0.6, 0.7, 0.8)],
    "drop p_true": [f"drop:{P_TRUE},threshold={risk}" for risk in (0.5, 0.3, 0.7)],
    "drop p_true+m3id": [
        *(f"drop:{P_TRUE},threshold={risk}+m3id:gate=0.5" for risk in (0.5, 0.4, 0.3, 0.2)),
        *(f"drop:{P_TRUE},threshold={risk}+m3id" for risk in (0.3, 0.25)),
    ],
    "nullu+m3id": [f"nullu:rank={rank}+m3id:gate=0.5" for rank in (4, 1, 8)],
    "drop p_true+nullu+m3id": [f"drop:{P_TRUE},threshold={risk}+nullu:rank=1+m3id:gate=0.5" for risk in (0.5, 0.7)],
    "flip": [f"flip:detector='dhcp',threshold={risk}" for risk in (0.5, 0.7, 0.9, 0.97)],
}
QUESTIONS_ONLY = ("mvp", "flip")
CAPTIONS_ONLY = (
    "guided", "drop", "reask", "drop+m3id", "erase", "drop p_true", "drop p_true+m3id", "drop p_true+nullu+m3id",
)  # fmt: skip
SPLITS = {  # images; 50: 900 questions, 167: 3,006
    ("validation", "chair"): 300, ("validation", "pope"): 50, ("test", "chair"): 1000, ("test", "pope"): 167,
}  # fmt: skip
SLOW = {("guided", "chair"): 100}  # images at most; the first ones
FIRST, SECOND = "embedded", "embedded-smollm2"
SECOND_SPLITS = {("test", "chair"): 500, ("test", "pope"): 56}  # 56: 1,008 questions
SECOND_SLOW = {("guided", "chair"): 50, ("opera", "chair"): 200, ("vicrop", "chair"): 200}
CHOSEN, TIMES = "chosen.json", "time.json"
RECORD = Path(__file__).parents[1] / "docs" / "methods.json"  # what was measured before: methods_record.py


def folder_of(out: Path, setting: str, split: str, benchmark: str, model: str = FIRST) -> Path:
    """Where a setting's answers and figures are."""
    part = f"{split}-{benchmark}" if model == FIRST else f"{model}-{split}-{benchmark}"
    return out / part / answer_file.file_name(setting)


def evaluated(out: Path, setting: str, split: str, benchmark: str, model: str = FIRST) -> Path:
    """The folder of a setting's answers and figures, evaluated unless it is there."""
    folder = folder_of(out, setting, split, benchmark, model)
    if not (folder / RESULTS).exists():
        name = setting.partition(":")[0]
        sizes, slow = (SPLITS, SLOW) if model == FIRST else (SECOND_SPLITS, SECOND_SLOW)
        limit = min(sizes[split, benchmark], slow.get((name, benchmark), sizes[split, benchmark]))
        print(f"{model} {split} {benchmark}: {setting}", flush=True)
        half = model == SECOND and benchmark == "chair"  # not its answers: Yes and No are often equal there
        spec = ModelSpec(model, "cpu", "bf16" if half else "auto" if model == FIRST else "fp32")
        source = Source(split=split, limit=limit)
        request = Evaluation(spec, [setting], benchmarks=[benchmark], source=source, batch_size=32)
        steps.evaluation(request, str(folder))
    return folder


def figures(folder: Path) -> dict[str, dict[str, float]]:
    (record,) = atomic.read_json(folder / RESULTS)
    return record["metrics"]


def captioning(methods: list[str]) -> list[str]:
    return [name for name in methods if name not in QUESTIONS_ONLY]


def choose(out: Path, methods: list[str]) -> None:
    """chosen.json: method -> setting -> its figures on validation scenes, and the one that is chosen."""
    found = atomic.read_json(out / CHOSEN) if (out / CHOSEN).exists() else {}
    limit = figures(evaluated(out, GREEDY, "validation", "chair"))["recall"]["value"] - RECALL_LOSS
    for name in captioning(methods):
        tried = {}
        for setting in GRID[name]:
            values = figures(evaluated(out, setting, "validation", "chair"))
            tried[setting] = {key: values[key]["value"] for key in ("chair_i", "recall")}
        good = [one for one in tried if tried[one]["recall"] >= limit]
        best = min(good or tried, key=lambda one: tried[one]["chair_i"] if good else -tried[one]["recall"])
        found[name] = {"settings": tried, "chosen": best}
        atomic.write_json(out / CHOSEN, found)
    for name in [one for one in methods if one in QUESTIONS_ONLY]:
        answered = {setting: figures(evaluated(out, setting, "validation", "pope")) for setting in GRID[name]}
        tried = {setting: {"accuracy": values["accuracy"]["value"]} for setting, values in answered.items()}
        found[name] = {"settings": tried, "chosen": max(tried, key=lambda one: tried[one]["accuracy"])}
        atomic.write_json(out / CHOSEN, found)


def labelled(tried: Mapping[str, Any], methods: Sequence[str] = tuple(GRID)) -> list[tuple[str, str, str]]:
    """(method, setting, "default" | "chosen" | "both"); tried: what CHOSEN holds."""
    rows = []
    for name in methods:
        first = GRID[name][0]
        best = tried.get(name, {}).get("chosen", first)
        rows.append((name, first, "both" if best == first else "default"))
        rows += [(name, best, "chosen")] if best != first else []
    return rows


def settings(out: Path, methods: Sequence[str]) -> list[tuple[str, str, str]]:
    """The same, of what was chosen in this folder of results, or else before it (RECORD)."""
    if (out / CHOSEN).exists():
        return labelled(atomic.read_json(out / CHOSEN), methods)
    return labelled(atomic.read_json(RECORD)["tried"] if RECORD.exists() else {}, methods)


def measure(
    out: Path, methods: list[str], benchmarks: Sequence[str] = ("chair", "pope"), model: str = FIRST, which: str = "all"
) -> None:
    """Evaluate on test scenes. which: "default", "chosen" or "all"."""
    unable = {"chair": QUESTIONS_ONLY, "pope": CAPTIONS_ONLY}
    for name, setting, label in settings(out, methods):
        for benchmark in benchmarks:
            if name not in unable[benchmark] and (which in ("all", label) or label == "both"):
                evaluated(out, setting, "test", benchmark, model)


def take_time(out: Path, methods: list[str], images: int = 16, runs: int = 3) -> None:
    """time.json: processor seconds per caption in batches of 16, and as a ratio to plain decoding; medians of pairs."""
    lvlm = load(ModelSpec("embedded", "cpu", "fp32"))
    photos = [scene("test", 2000 + number).image for number in range(images)]
    warnings.simplefilter("ignore")

    def seconds(setting: str) -> float:
        began = time.process_time()
        methods = chain(setting, lvlm.name)
        lvlm.caption(photos, prompt=DETAIL_PROMPT, decoders=methods, batch_size=16, max_new_tokens=128)
        return (time.process_time() - began) / images

    found: dict[str, Any] = {"machine": machine(), "threads": torch.get_num_threads(), "runs": runs, "seconds": {}}
    if (out / TIMES).exists():
        found["seconds"] = atomic.read_json(out / TIMES)["seconds"]
    for name, setting, _ in settings(out, captioning(methods)):
        if (name, "chair") in SLOW or setting in found["seconds"]:
            continue
        seconds(setting)  # what is made once: a matcher's maps, a probe
        pairs = [(seconds(GREEDY), seconds(setting)) for _ in range(runs)]
        found["seconds"][setting] = {
            "median": statistics.median(mine for _, mine in pairs),
            "ratio": statistics.median(mine / plain for plain, mine in pairs),
        }
        print(name, json.dumps(found["seconds"][setting]), flush=True)
        atomic.write_json(out / TIMES, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("choose", "measure", "time"))
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--method", action="append", choices=tuple(GRID), help="only these; all if not given")
    parser.add_argument("--without", action="append", default=[], choices=tuple(GRID))
    parser.add_argument("--benchmark", choices=("chair", "pope"), help="of measure: only this")
    parser.add_argument("--model", choices=(FIRST, SECOND), default=FIRST, help="of measure")
    parser.add_argument("--which", choices=("default", "chosen", "all"), default="all", help="of measure: settings")
    arguments = parser.parse_args()
    methods = [name for name in arguments.method or GRID if name not in arguments.without]
    if arguments.part == "measure":
        benchmarks = [arguments.benchmark] if arguments.benchmark else ("chair", "pope")
        measure(arguments.out, methods, benchmarks, arguments.model, arguments.which)
    else:
        {"choose": choose, "time": take_time}[arguments.part](arguments.out, methods)


if __name__ == "__main__":
    main()
