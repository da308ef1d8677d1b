"""A model specification: which model, where and how it is loaded, in plain values that hash, compare and serialise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ..lvlm import LVLM


@dataclass(frozen=True)
class ModelSpec:
    """A model and how it is loaded; equal specifications stand for the same loaded model.

    Args:
        name: "embedded", a folder, or a Hub id.
        device, dtype, revision, quantization, attention: as `pipelines.model.load.load` takes them.

    >>> ModelSpec("embedded", dtype="fp32").record()["model"]
    'embedded'
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # where Prefect validates a parameter

    name: str
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    quantization: str | None = None
    attention: str | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ModelSpec:
        """The specification in a stored request, whose fields stand beside others, the name as "model"."""
        named = {"name": record["model"], **record}
        return cls(**{field.name: named[field.name] for field in fields(cls) if field.name in named})

    def record(self) -> dict[str, Any]:
        """The reverse of `from_record`: the fields as a stored request holds them."""
        values = asdict(self)
        return {"model": values.pop("name"), **values}


@lru_cache(maxsize=1)
def load(spec: ModelSpec) -> LVLM:
    """The model of a specification, loaded once for all that a process does with it.

    Raises:
        CannotLoad, UnsupportedModel: as `pipelines.model.load.load`.
    """
    from . import load as loading

    return loading.load(spec.name, spec.device, spec.dtype, spec.revision, spec.quantization, spec.attention)
