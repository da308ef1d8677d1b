"""`--config run.toml`, or the manifest.json of a run: a command's options from a file; those given beside it win."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer


def configured(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take the file's values as the defaults of this command.

    Raises:
        FileNotFoundError, ValueError: no such file, no TOML, or a name that is no option of the command.
    """
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"--config {path}: no such file; needed: TOML such as `limit = 50`.")
    if path.suffix == ".json":
        content = of_manifest(path)
    else:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"--config {path} is no UTF-8 text (byte {error.start}); save it as UTF-8.") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"--config {path} is no TOML ({error}).") from error
    options = _options(ctx)
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'--config {path}: no option "{name}".{hint} Possible: {", ".join(sorted(options))}.')
        param = options[name]
        several = bool(getattr(param, "multiple", False))
        if isinstance(value, dict) or (isinstance(value, list) and not several):
            raise ValueError(f"--config {path}: {name} is one value, not {value!r}.")
        values[param.name] = [value] if several and not isinstance(value, list) else value
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


def of_manifest(path: Path) -> dict[str, Any]:
    """The options of the evaluation whose manifest.json this is, but for its --out.

    Raises:
        ValueError: no manifest, or a prompt whose words are no option any more.
    """
    from ..flows.files import atomic

    record = atomic.read_json(path)
    if not isinstance(record, dict) or "request" not in record:
        raise ValueError(f"--config {path} is no manifest.json of `veridical evaluate`; another file must be TOML.")
    request = record["request"]
    source, generation = request["source"], request["generation"]
    names = (source["prompt_name"] or "").split()
    if not all(name.startswith("@") for name in names):
        raise ValueError(f"--config {path}: its prompts are texts ({source['prompt_name']!r}): give --prompt in TOML.")
    values = {
        **{name: request[name] for name in ("model", "device", "dtype", "revision", "quantization", "attention")},
        **{name: source[name] for name in ("coco", "split", "limit", "seed", "synonyms", "system", "images", "data")},
        "decoder": request["decoders"], "detector": request["detectors"], "benchmark": request["benchmarks"],
        "batch-size": request["batch_size"], "protocol": source["pope"], "prompt": names,
        "max-new-tokens": generation.get("max_new_tokens"), "num-beams": generation.get("num_beams"),
    }  # fmt: skip
    if generation.get("do_sample"):
        values |= {"sample": True, "temperature": generation.get("temperature"), "top-p": generation.get("top_p")}
    return {name: value for name, value in values.items() if value is not None and value != []}


def _options(ctx: typer.Context) -> dict[str, Any]:
    """The options of a command by their long names without dashes, but those that are about the command itself."""
    found = {}
    for param in ctx.command.params:
        for text in getattr(param, "opts", ()):
            if text.startswith("--") and text not in ("--config", "--help"):
                found[text.removeprefix("--")] = param
    return found


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", is_eager=True, callback=configured, show_default=False,
        help='A TOML file with options by their names, such as `decoder = ["greedy", "vcd"]`, or the manifest.json of '
        "an evaluation; options that are given here win.",
    ),
]  # fmt: skip
