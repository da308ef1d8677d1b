"""`evaluate --prompt … --system …`: a benchmark's questions in other words, as fields of `Source`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..flows.benchmarks.registry import BENCHMARKS
from ..pipelines.inputs import prompts as known


def protocol(prompts: Sequence[str], system: str | None, benchmarks: Sequence[str]) -> dict[str, Any]:
    """Fields of `Source` for prompts, "@name" or texts, and a system prompt.

    Benchmarks that describe images take the first caption prompt, those that ask questions the first frame, each its
    own where none is given.

    Raises:
        UnknownName: no prompt of that name.
        ValueError: a prompt that no benchmark here can use, or a frame that puts words in front of the question.
    """
    out: dict[str, Any] = {}
    describing = [name for name in benchmarks if BENCHMARKS[name].prompt is not None]
    asking = [name for name in benchmarks if name not in describing]
    for wanted in prompts:
        caption, frame = known.caption_of(wanted), known.frame_of(wanted)
        used = (caption is not None and describing) or (frame is not None and asking)
        if not used:
            kind = "requests a caption" if frame is None else "frames questions"
            raise ValueError(f"--prompt {wanted!r} {kind}, which {' and '.join(benchmarks)} cannot use; leave it out.")
        if caption is not None and describing:
            out.setdefault("prompt", caption)
        if frame is not None and asking:
            out.setdefault("suffix", suffix(wanted, frame))
    if prompts:
        out["prompt_name"] = " ".join(prompts)
    return out | ({"system": system} if system else {})


def suffix(wanted: str, frame: str) -> str:
    """What a frame puts behind the question.

    Raises:
        ValueError: it puts words in front of the question, which benchmarks do not take.
    """
    front, _, behind = frame.partition(known.SLOT)
    if front:
        raise ValueError(
            f"--prompt {wanted!r} puts {front!r} in front of the question; a benchmark's question can only be followed "
            "by other words. `veridical answer` takes it."
        )
    return behind
