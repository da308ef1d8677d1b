"""Which examples of an evaluation a report shows, the telling ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..benchmarks.base import Benchmark, Mark
from . import answer_file
from .request import Evaluation

PLAIN = "greedy"


def marks_of(
    request: Evaluation, benchmark: Benchmark, rows: Mapping[str, Sequence[answer_file.Row]]
) -> dict[str, list[list[Mark]]]:
    """Decoder -> the marks of each answer, in the order of the examples."""
    examples = benchmark.examples(request.source)
    return {
        decoder: [benchmark.marks(request.source, e, row["text"]) for e, row in zip(examples, answers, strict=True)]
        for decoder, answers in rows.items()
    }


def chosen(out: str, request: Evaluation, benchmark: Benchmark, wanted: int) -> list[int]:
    """Places of the examples that are shown, from the answers in a folder."""
    examples = benchmark.examples(request.source)
    rows = {
        decoder: answer_file.rows_of(out, benchmark.name, decoder, examples) for decoder in request.decoders
    }  # fmt: skip
    return choose(wrong_of(marks_of(request, benchmark, rows)), [e.image for e in examples], wanted)


def wrong_of(marks: Mapping[str, Sequence[Sequence[Mark]]]) -> dict[str, list[int]]:
    """Decoder -> how many marks of each answer are wrong."""
    return {decoder: [sum(not m.right for m in found) for found in per] for decoder, per in marks.items()}


def choose(wrong: Mapping[str, Sequence[int]], images: Sequence[str], wanted: int) -> list[int]:
    """Which examples to show: one per image, by turns one where some decoder errs less than plain decoding, one where
    some errs more, and one where all err alike; the earliest first, and then the others.

    >>> choose({"greedy": [1, 0, 0, 1], "vcd": [1, 0, 1, 0]}, ["a", "b", "c", "d"], 3)
    [3, 2, 0]
    """
    plain = wrong.get(PLAIN) or next(iter(wrong.values()), [])
    gains = [[base - errors[index] for errors in wrong.values()] for index, base in enumerate(plain)]
    helped = [index for index, gain in enumerate(gains) if max(gain) > 0]
    hurt = [index for index, gain in enumerate(gains) if max(gain) <= 0 and min(gain) < 0]
    alike = [index for index, gain in enumerate(gains) if not any(gain) and plain[index]]
    rest = [index for index, gain in enumerate(gains) if not any(gain) and not plain[index]]
    queues, seen = [helped, hurt, alike], set()
    out: list[int] = []
    while len(out) < wanted and (any(queues) or rest):
        for queue in queues if any(queues) else [rest]:
            while queue and len(out) < wanted:
                index = queue.pop(0)
                if images[index] not in seen:
                    seen.add(images[index])
                    out.append(index)
                    break
    return out
