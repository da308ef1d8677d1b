"""`caption --setting chosen.json`: what `veridical choose` certified, in the place of the options that it fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..pipelines.model.spec import ModelSpec

SettingFile = Annotated[
    Path | None,
    typer.Option(
        "--setting", show_default=False,
        help="A file of `veridical choose`: its model, decoder, prompt and number of tokens, as they were certified.",
    ),
]  # fmt: skip
FIXED = ("decoder", "prompt", "system", "sample", "temperature", "top_p", "num_beams")
NEUTRAL: Mapping[str, Any] = {"sample": False, "num_beams": 1}
DEFAULTS: Mapping[str, Any] = {"model": "embedded", "max_new_tokens": 128}


@dataclass(frozen=True)
class Applied:
    """What a setting file says: the model, the decoders, the words of the request, and the number of tokens."""

    spec: ModelSpec
    decoders: list[str]
    prompt: str
    max_new_tokens: int


def read(path: Path, options: Mapping[str, Any], spec: ModelSpec) -> Applied:
    """The setting of a file, with device and attention as the command has them.

    Args:
        options: the command's. spec: the model that they name.

    Raises:
        FileNotFoundError, ValueError: no setting file, one that claims nothing, or an option that it fixes.
    """
    from ..flows.files import atomic

    found = atomic.read_json(path)
    if not isinstance(found, dict) or not {"setting", "guarantee", "model", "prompt", "generation"} <= found.keys():
        raise ValueError(f"{path} is no file of `veridical choose`.")
    if found["setting"] is None:
        raise ValueError(f"{path} holds no setting. {found['guarantee']}")
    if given := [name for name in FIXED if options[name] not in (None, NEUTRAL.get(name))]:
        option = given[0].replace("_", "-")
        raise ValueError(f"--{option} is fixed by {path}, which is certified for what it holds: leave it out.")
    certified, tokens = ModelSpec.from_record(found["model"]), int(found["generation"]["max_new_tokens"])
    for name, mine in (("model", certified.name), ("max_new_tokens", tokens)):
        if options[name] not in (mine, DEFAULTS[name]):
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {options[name]} is another than {path} was certified for: {mine}.")
    here = replace(certified, device=spec.device, attention=spec.attention)
    return Applied(here, [found["setting"]], found["prompt"], tokens)
