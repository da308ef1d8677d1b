"""Plain decoding, under the name that tables give it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..pipelines.method import Decoder


@dataclass(frozen=True)
class Greedy(Decoder):
    """Declares nothing: the model decodes as it would without veridical. Valid wherever a decoder is named."""

    neutral = {}

    def edits(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield from ()
