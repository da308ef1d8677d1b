"""The shared contract for methods of other packages: a tiny model, and tests that every decoder and detector must pass.

    from veridical.testing import DecoderContract

    class TestMine(DecoderContract):
        decoder = Mine(weight=0.5)

pytest then runs each test of the contract on a random LLaVA with three prompts, in seconds and offline.
"""

from .contract import Case, DecoderContract, DetectorContract, difference, scale, tiny_case
from .leftovers import assert_unchanged, snapshot
from .tiny import batch, plant_sinks, prompt, tiny_llava

__all__ = [
    "Case", "DecoderContract", "DetectorContract", "assert_unchanged", "batch", "difference", "plant_sinks", "prompt",
    "scale", "snapshot", "tiny_case", "tiny_llava",
]  # fmt: skip
