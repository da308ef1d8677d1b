"""What a method costs on this machine: time to the first token, time per token, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...pipelines.checkup.case import Case

MB = 1e6
REPEATS = 3
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # Linux alone


def cost(case: Case, kind: str, name: str) -> dict[str, Any]:
    """first_ms: time to the first token, preparations of the method included. token_ms: each further one; medians.

    peak_mb: the largest memory of the process while it ran (CPU), or of all GPUs together as torch counts it; with the
    weights. None where the system does not tell. acted: steps at which the method changed something, of `steps`; of
    joined decoders the one that did least.
    """
    from ...pipelines.chain import chain
    from ...pipelines.checkup.case import forced
    from ...pipelines.generate import generate

    methods: dict[str, Any] = {"decoders": chain(name, case.lvlm.name)} if kind == "decoder" else {"detectors": [name]}
    tokens = case.chosen[:1]
    run = lambda count: generate(case.lvlm, case.alone[0], **methods, **forced(tokens[:, :count]))
    device = case.lvlm.device.type
    known = forget_peak(device)
    generation, whole = timed(device, lambda: run(tokens.shape[1]))
    peak = peak_memory(device) if known else None
    first = timed(device, lambda: run(1))[1]
    further = max(tokens.shape[1] - 1, 1)
    counts = [acted.acted[0] for acted in generation.acted.values()]
    return {
        "kind": kind, "first_ms": round(1000 * first, 2),
        "token_ms": round(1000 * max(whole - first, 0.0) / further, 2),
        "peak_mb": peak, "steps": tokens.shape[1],
        "acted": int(min(counts)) if counts else None,
    }  # fmt: skip


def timed(device: str, run: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a run, and the median of its seconds over `REPEATS` runs, work on a GPU included."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for _ in range(REPEATS):
        wait()
        began = time.perf_counter()
        result = run()
        wait()
        seconds.append(time.perf_counter() - began)
    return result, median(seconds)


def forget_peak(device: str) -> bool:
    """Begin to measure memory anew; whether that is possible here."""
    import torch

    if device == "cuda":
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
        return True
    try:
        CLEAR.write_text("5", encoding="ascii")  # 5: the peak of the resident set, nothing else
    except OSError:
        return False
    return True


def peak_memory(device: str) -> float | None:
    """MB since `forget_peak`; None if the system does not tell."""
    import torch

    if device == "cuda":
        every = range(torch.cuda.device_count())
        return round(sum(torch.cuda.max_memory_allocated(index) for index in every) / MB, 1)
    lines = STATUS.read_text(encoding="ascii").splitlines()
    found = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if found is None else round(int(found) * 1024 / MB, 1)
