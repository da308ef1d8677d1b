"""Milliseconds per token of every decoder beside plain decoding, interleaved, as a median ratio over paired runs.

    python benchmarks/speed.py --model embedded --decoder vcd --decoder vista --runs 20
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings

import torch

import veridical
from veridical.datasets.world import scene
from veridical.flows.training.card import machine
from veridical.pipelines.registry import DECODERS


def seconds(lvlm, inputs, decoders, tokens: int) -> float:
    if lvlm.device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    veridical.generate(lvlm, inputs, decoders, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    if lvlm.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--decoder", action="append", default=[])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    lvlm = veridical.load(options.model)
    images = [scene("test", index).image for index in range(options.batch)]
    inputs = lvlm.prepare(images, ["Please describe this image in detail."] * options.batch)
    names = options.decoder or sorted(DECODERS.names)
    print(f"{options.model} on {machine()}, batch {options.batch}, {options.tokens} tokens, {options.runs} paired runs")
    for name in names:
        seconds(lvlm, inputs, [name], options.tokens)
        pairs = [
            (seconds(lvlm, inputs, [], options.tokens), seconds(lvlm, inputs, [name], options.tokens))
            for _ in range(options.runs)
        ]
        ratios = sorted(with_it / plain for plain, with_it in pairs)
        each = statistics.median(with_it for _, with_it in pairs) / options.tokens / options.batch * 1000
        print(json.dumps({"decoder": name, "ms_per_token": round(each, 3), "ratio": round(statistics.median(ratios), 3),
                          "ratio_low": round(ratios[0], 3), "ratio_high": round(ratios[-1], 3)}))  # fmt: skip


if __name__ == "__main__":
    main()
