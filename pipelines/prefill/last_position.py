"""One prompt whose last position is computed again and again, in many rows with other edits there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..engine.declarations import Declaration, Step
from ..engine.hooks import applied
from ..engine.rows import arrange, sequences
from ..inputs.complete import complete
from ..inputs.rows import repeated
from ..model import families
from ..model.layout import Layout
from .images import TEXT
from .memo import Layers, cache_argument, cache_of, kept
from .start import apart, prefill


class LastPosition:
    """A prompt of one row, read up to its last position once where the model's prompts can be computed apart."""

    def __init__(self, lvlm: Layout, inputs: Mapping[str, Tensor]) -> None:
        self.lvlm, self.inputs = lvlm, complete(lvlm, inputs)
        one = len(self.inputs["input_ids"]) == 1 and bool(self.inputs["attention_mask"].all())
        self.before = self._read() if one and apart(lvlm, self.inputs) else None

    @torch.no_grad()
    def logits(self, rows: int, declarations: Sequence[Declaration]) -> Float[Tensor, "row vocab"]:
        """Of the next token, in so many equal rows. declarations: what they change, they change at the last position.

        A reading of other positions, or an edit of them, wants `prefill`.
        """
        lvlm = self.lvlm
        if self.before is None:
            batch = repeated(self.inputs, rows, lvlm.pad_token)
            return prefill(lvlm, batch, declarations).branches["main"]
        text = repeated({name: self.inputs[name] for name in TEXT}, rows, lvlm.pad_token)
        arranged = arrange([(d, -1) for d in declarations], text, lvlm.pad_token)
        where, width = sequences(lvlm, arranged), text["input_ids"].shape[1]
        where.seen = width - 1
        spread = lambda states: states.expand(rows, -1, -1, -1)
        cache = cache_of((spread(keys), spread(values)) for keys, values in self.before)
        last = text["input_ids"][:, -1:]
        with applied(lvlm, arranged.placed, where, Step(ids=text["input_ids"])) as plan:
            output = lvlm.model(
                input_ids=last, attention_mask=text["attention_mask"], position_ids=torch.full_like(last, width - 1),
                use_cache=True, logits_to_keep=1, **cache_argument(lvlm, cache),
            )  # fmt: skip
            plan.check()
        return output.logits[:, -1].to(lvlm.device)

    @torch.no_grad()
    def _read(self) -> Layers | None:
        text = {name: self.inputs[name][:, :-1] for name in TEXT}
        where = families.direct_positions(self.lvlm.model, text)
        return kept(self.lvlm.model(**{**self.inputs, **text}, **where, use_cache=True, logits_to_keep=1))
