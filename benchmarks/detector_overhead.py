"""What a detector costs while a text is made: the median time ratio over paired, interleaved runs, with an interval.

    python benchmarks/detector_overhead.py --model embedded --detector lookback_lens --runs 20
    python benchmarks/detector_overhead.py --model random --tokens 16     # a LLaVA of 134 M random parameters

Each pair is two runs one after the other, with and without the detector, in turns first and second. The interval is
that of the median (sign test, 95 %); with --clock cpu it is processor time, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

import veridical
from veridical.detectors.dhcp import DHCP
from veridical.detectors.probe import HIDDEN, MLP
from veridical.flows.training.card import machine

DETECTORS = ["entropy", "token_probability", "image_attention", "lookback_lens", "dhcp"]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def random_llava() -> veridical.LVLM:
    """A LLaVA of 134 M random parameters, from its configuration: nothing is downloaded."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, image_size=192,
            patch_size=16,
        ),
        text_config=LlamaConfig(
            vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
            num_key_value_heads=12, max_position_embeddings=1024, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        ),
        image_token_index=3, image_seq_length=144, vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    return veridical.LVLM(model, name="random")


def random_dhcp(lvlm: veridical.LVLM) -> Any:
    """DHCP with a random probe for the images of `random_inputs`: what it says means nothing, its cost does."""
    size, draw = len(lvlm.layers) * lvlm.heads * 144, torch.Generator().manual_seed(0)
    noise = lambda *shape: torch.randn(*shape, generator=draw)
    probe = MLP(torch.zeros(size), torch.ones(size), noise(HIDDEN, size), noise(HIDDEN), noise(2, HIDDEN), noise(2))
    return DHCP(weights=None)._with(probe, {})


def random_inputs(batch: int) -> dict[str, torch.Tensor]:
    """Prompts of 144 image tokens and 16 words."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(4, 32000, (batch, 16), generator=generator)
    ids = torch.cat([torch.full((batch, 1), 1), torch.full((batch, 144), 3), words], 1)
    pixels = torch.randn(batch, 3, 192, 192, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The order statistics between which the median lies in at least 95 % of samples; all of them where n < 6."""
    ordered, n = sorted(values), len(values)
    tail, low = 0.0, 0
    for below in range(n // 2):
        tail += math.comb(n, below) / 2**n
        if 2 * tail > 0.05:
            break
        low = below + 1
    low = max(low - 1, 0) if low else 0
    return ordered[low], ordered[n - 1 - low]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help='"random", or what veridical.load takes')
    parser.add_argument("--detector", action="append", default=[])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    if options.model == "random":
        lvlm, inputs = random_llava(), random_inputs(options.batch)
    else:
        from veridical.datasets.world import scene

        lvlm = veridical.load(options.model)
        images = [scene("test", index).image for index in range(options.batch)]
        inputs = lvlm.prepare(images, ["Please describe this image in detail."] * options.batch)
    instances = {"dhcp": random_dhcp(lvlm)} if options.model == "random" else {}
    clock, tokens = CLOCKS[options.clock], options.tokens

    def seconds(names: Sequence[str]) -> float:
        detectors = [instances.get(name, name) for name in names]
        if lvlm.device.type == "cuda":
            torch.cuda.synchronize()
        began = clock()
        veridical.generate(lvlm, inputs, [], detectors, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        if lvlm.device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - began

    count = sum(weight.numel() for weight in lvlm.model.parameters())
    print(f"{options.model}, {count / 1e6:.1f} M parameters, on {machine()}; batch {options.batch}, {tokens} tokens, "
          f"n = {options.runs} pairs, {options.clock} time")  # fmt: skip
    for name in options.detector or DETECTORS:
        try:
            seconds([name])
        except ValueError as error:
            print(json.dumps({"detector": name, "skipped": str(error)}))
            continue
        pairs = []
        for run in range(options.runs):
            first = seconds([name] if run % 2 else [])
            second = seconds([] if run % 2 else [name])
            pairs.append((second, first) if run % 2 else (first, second))
        ratios = [with_it / plain for plain, with_it in pairs]
        low, high = median_interval(ratios)
        per_token = statistics.median(with_it - plain for plain, with_it in pairs) / tokens
        print(json.dumps({
            "detector": name, "ratio": round(statistics.median(ratios), 3), "low": round(low, 3),
            "high": round(high, 3), "n": len(ratios), "ms_more_per_step": round(1000 * per_token, 3),
            "ms_plain_per_step": round(1000 * statistics.median(plain for plain, _ in pairs) / tokens, 3),
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
