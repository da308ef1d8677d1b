"""Everything that wants a GPU, in one command of less than ten minutes: `make gpu-check`.

    python benchmarks/gpu_check.py --out runs/gpu

Its steps, each with a limit of its own; what a step finds stands in gpu.json with the card's name, and a step that
fails does not stop the next:

- methods: every registered decoder on the embedded model, logits of 8 steps on the GPU against those on the processor
  (float32), and bfloat16 against float32 on the GPU: the largest differences, and whether the texts are equal;
- attention: plain decoding, VAR and the Lookback Lens under sdpa, eager and, where it is installed, flash attention;
- tests: the whole suite, one worker per core;
- bench: the random 7B-shaped LLaVA in bfloat16 (benchmarks/bench.py);
- evaluation: CHAIR and POPE on the embedded model through the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import veridical
from veridical.datasets.captions import DETAIL_PROMPT
from veridical.datasets.world import scene
from veridical.flows.files import atomic
from veridical.pipelines.registry import DECODERS

ROOT = Path(__file__).resolve().parent.parent
SECONDS = {"tests": 240, "bench": 150, "evaluation": 90}
STEPS = 8


def logits(lvlm: veridical.LVLM, decoders: Any) -> tuple[torch.Tensor, list[str]]:
    inputs = lvlm.prepare([scene("test", i).image for i in range(4)], [DETAIL_PROMPT] * 4)
    found = veridical.generate(lvlm, inputs, decoders, return_logits=True, max_new_tokens=STEPS, do_sample=False)
    return found.logits.float().cpu(), found.text  # type: ignore[union-attr]


def difference(mine: tuple[torch.Tensor, list[str]], other: tuple[torch.Tensor, list[str]]) -> dict[str, Any]:
    """The largest difference at the first step, where both have the same text so far, and whether the texts agree."""
    first, second = mine[0][:, 0], other[0][:, 0]
    both = first.isfinite() & second.isfinite()
    return {"difference": float((first - second)[both].abs().max()), "same_text": mine[1] == other[1]}


def methods(device: str) -> dict[str, Any]:
    models = [
        veridical.load("embedded", device=where, dtype=dtype)
        for where, dtype in (("cpu", "fp32"), (device, "fp32"), (device, "bf16"))
    ]
    found: dict[str, Any] = {}
    for name in sorted(DECODERS.names):
        try:
            here, there, narrow = (logits(one, [name]) for one in models)
        except (TypeError, ValueError) as cannot:  # a procedure, or a method that needs an argument
            found[name] = {"left_out": str(cannot).splitlines()[0]}
            continue
        found[name] = {"against_cpu": difference(there, here), "bf16": difference(narrow, there)}
    return found


def attention(device: str) -> dict[str, Any]:
    kinds = ["sdpa", "eager", *(["flash_attention_2"] if find_spec("flash_attn") else [])]
    found: dict[str, Any] = {} if len(kinds) == 3 else {"flash_attention_2": "the package flash_attn is not installed"}
    first: dict[str, Any] = {}
    for kind in kinds:
        dtype = "bf16" if kind.startswith("flash") else "fp32"
        lvlm = veridical.load("embedded", device=device, dtype=dtype, attention=kind)
        for name in ("greedy", "var:tau=2,min_nonsink=0,min_image=0"):
            got = logits(lvlm, [name])
            found[f"{kind} {name}"] = difference(got, first.setdefault(name, got))
    return found


def command(arguments: list[str], limit: int) -> dict[str, Any]:
    """What a command of its own ended with, and the end of what it wrote."""
    began = time.perf_counter()
    try:
        done = subprocess.run(arguments, cwd=ROOT, timeout=limit, capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired as slow:
        text = slow.stdout.decode() if isinstance(slow.stdout, bytes) else slow.stdout or ""
        return {"status": "over its limit", "limit": limit, "output": text[-2000:]}
    seconds = round(time.perf_counter() - began, 1)
    return {"status": done.returncode, "seconds": seconds, "output": (done.stdout + done.stderr)[-2000:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--step", action="append", default=[])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU here; nothing was checked. --device cpu tries the script itself.")
    warnings.filterwarnings("ignore", category=UserWarning)
    out, python, size = Path(options.out), sys.executable, "7b" if options.device == "cuda" else "small"
    bench = [python, "benchmarks/bench.py", "measure", "--device", options.device, "--out", str(out / "bench")]
    bench += ["--model", f"random-{size}", "--runs", "3", "--tokens", "1", "52", "--questions", "greedy", "vcd"]
    program = "from veridical.cli.main import main; main()"
    evaluate = [python, "-P", "-c", program, "evaluate", "-d", "greedy", "-d", "vcd"]
    evaluate += ["--device", options.device, "--benchmark", "chair", "--benchmark", "pope", "--limit", "100"]
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "methods": lambda: methods(options.device),
        "attention": lambda: attention(options.device),
        "bench": lambda: command(bench, SECONDS["bench"]),
        "evaluation": lambda: command([*evaluate, "--out", str(out / "evaluation")], SECONDS["evaluation"]),
        "tests": lambda: command([python, "-m", "pytest", "-n", str(os.cpu_count())], SECONDS["tests"]),
    }
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    found: dict[str, Any] = {"device": name, "torch": torch.__version__}
    out.mkdir(parents=True, exist_ok=True)
    for step in options.step or steps:
        try:
            found[step] = steps[step]()
        except Exception as broken:  # the next step may still say something
            found[step] = {"error": f"{type(broken).__name__}: {broken}"}
        atomic.write_json(out / "gpu.json", found)
        print(step, json.dumps(found[step])[:600], flush=True)


if __name__ == "__main__":
    main()
