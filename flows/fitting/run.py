"""Fits what a decoder finds once on a model, and saves it in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...metrics.chair import Chair
from ...pipelines.registry import DECODERS
from .pairs import Pair, digest

FITTED = ("adhh", "nullu", "vti")


def fit(lvlm: Any, name: str, pairs: Sequence[Pair], out: str | Path, **options: Any) -> Path:
    """Fit a decoder on pairs of captions and save it; returns the folder, for "name:weights=FOLDER".

    options: nullu: batch_size, final_norm. vti: fields of `Demonstrations`. adhh: top, synonyms, max_new_tokens.

    Raises:
        ValueError: a decoder that is not fitted, or pairs that do not do.
    """
    if name not in FITTED:
        raise ValueError(f"{name} is not fitted on pairs of captions; possible: {', '.join(FITTED)}.")
    cls, data = DECODERS.type(name), {"pairs_sha256": digest(pairs)}
    images = [pair.image for pair in pairs]
    if name == "nullu":
        found = cls.fit(lvlm, images, [p.truthful for p in pairs], [p.hallucinated for p in pairs], **options)
    elif name == "vti":
        from ...decoders.vti_fit import Demonstrations

        found = cls.fit(lvlm, [(p.truthful, p.hallucinated) for p in pairs], images, Demonstrations(**options))
    else:
        found = _heads(cls, lvlm, pairs, **options)
    return found.save_pretrained(out, data=data)


def _heads(
    cls: Any, lvlm: Any, pairs: Sequence[Pair], top: int = 20, synonyms: str | None = None, max_new_tokens: int = 64,
) -> Any:  # fmt: skip
    """ADHH on the model's own captions: an object that the true caption lacks is hallucinated."""
    from ...decoders.adhh_heads import Influence

    chair, how = Chair(synonyms), Influence()
    images = [pair.image for pair in pairs]
    captions = [one.text for one in lvlm.caption(images, prompt=how.question, max_new_tokens=max_new_tokens)]
    wrong: list[list[str]] = []
    right: list[list[str]] = []
    for caption, pair in zip(captions, pairs, strict=True):
        truth, found = set(chair.parse(pair.truthful).objects), chair.parse(caption)
        words = [caption[start:end] for start, end in found.spans]
        sides = zip(words, found.objects, strict=True)
        marked = [(word, name in truth) for word, name in sides]
        wrong.append([word for word, true in marked if not true])
        right.append([word for word, true in marked if true])
    some = [row for row, words in enumerate(wrong) if words]  # captions without a hallucinated word are left out
    if not some:
        raise ValueError(f"none of {len(pairs)} captions names an object that its true caption lacks: give more pairs.")
    pick = lambda values: [values[row] for row in some]
    return cls.fit(lvlm, pick(images), pick(captions), pick(wrong), pick(right), top=top, how=how)
