"""Plain decoding, under the name that tables give it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Greedy:
    """Declares nothing: the model decodes as it would without veridical. Valid wherever a decoder is named."""

    paper: ClassVar[str] = "–"
    changes: ClassVar[str] = "nothing"
    cost: ClassVar[str] = "1 forward per token"

    def edits(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield from ()
