"""The report of `veridical check` as text that can be pasted into a bug report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...flows.evaluation.text import markdown_table


def text(report: Mapping[str, Any]) -> str:
    """The report in Markdown: the model, what was checked, what was not and why, what methods cost, what it ran on."""
    parts = [
        f"# veridical check {report['model']['model']}",
        _bullets(_model(report)),
        "## Checks",
        report["tolerances"],
        markdown_table(
            ("", "check", "error", "allowed", "where"), [_finding(one) for one in report["findings"]], padded=True
        ),
    ]
    if report["not_checked"]:
        parts += ["## Not checked", _bullets(report["not_checked"])]
    if report["costs"]:
        head = ("method", "first token, ms", "further tokens, ms each", "peak memory, MB", "acted")
        parts += [
            "## Costs",
            f"One prompt, {report['tokens']} tokens, medians of 3 runs. Memory: the whole process's, with the weights.",
            markdown_table(head, [_cost(name, cost) for name, cost in report["costs"].items()], padded=True),
        ]
    return "\n\n".join([*parts, "## Ran on", _bullets(_machine(report)), verdict(report)])


def verdict(report: Mapping[str, Any]) -> str:
    """The last line: how much holds, and what does not."""
    failed = [one["name"] for one in report["findings"] if not one["holds"]]
    count = f"{len(report['findings']) - len(failed)} of {len(report['findings'])} checks hold"
    skipped = f"; not checked: {', '.join(report['not_checked'])}" if report["not_checked"] else ""
    return f"**{count}{skipped}**" + (f"; these do not: {', '.join(failed)}" if failed else "")


def forecasts(found: Sequence[Mapping[str, Any]]) -> str:
    """Predicted times of a job, one line for each decoder, with what was counted and what was measured."""
    one = found[0]
    head = ("decoder", "time", "95 %", "s/image", "encodings", "prompt", "tokens", "longest", "rows × tokens")
    lines = [
        (
            row["decoder"], duration(row["seconds"]), f"{duration(row['low'])} to {duration(row['high'])}",
            f"{row['seconds'] / row['images']:.3g}", "–" if row["encodings"] is None else f"{row['encodings']:.2f}",
            f"{row['prompt']:.0f}", f"{row['tokens']:.1f}", f"{row['longest']:.1f}", f"{row['rows']:.1f}",
        )
        for row in found
    ]  # fmt: skip
    about = (
        f"{one['images']:,} images in batches of {one['batch']}, once the model is loaded; lengths of captions from "
        f"{one['sample']} images. Counted, for an image: encodings, positions of prompts, tokens, rows × tokens behind "
        "the first; longest: the expected longest text of a batch. The 95 % are for the mean length of the captions."
    )
    return f"{about}\n\n{markdown_table(head, lines, padded=True)}"


def duration(seconds: float) -> str:
    """Seconds as one reads them.

    >>> duration(7.25), duration(192), duration(7500), duration(200_000)
    ('7.2 s', '3 min 12 s', '2 h 5 min', '2 d 8 h')
    """
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    if seconds < 86_400:
        return "{} h {} min".format(*divmod(round(seconds / 60), 60))
    return "{} d {} h".format(*divmod(round(seconds / 3600), 24))


def _model(report: Mapping[str, Any]) -> dict[str, Any]:
    model, size_of_image = report["model"], report["image"]  # width, height
    weights, cache, work = (f"{report['estimate'][part] / 1e6:,.1f} MB" for part in ("weights", "cache", "work"))
    size = f"{model['layers']} layers, {model['heads']} heads, hidden size {model['hidden']}"
    return {
        "class": f"{model['class']} ({model['model_type']}) over {model['decoder']}",
        "size": f"{model['parameters']:,} parameters, {size}",
        "processor": model["processor"], "revision": model["revision"], "weights": model["weights"],
        "memory, estimated": f"{weights} of weights; {cache} of cache and {work} of work for a row of 2,048 tokens",
        "dtype": model["dtype"], "device": model["device"], "attention": model["attention"],
        "image": f"{size_of_image[0]}×{size_of_image[1]} pixels", "prompt": repr(report["prompt"]),
    }  # fmt: skip


def _machine(report: Mapping[str, Any]) -> dict[str, Any]:
    hardware = report["hardware"]
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        "GPUs": ", ".join(hardware["gpus"]) or "none",
        "CPU": f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} threads",
        "system": hardware["system"],
    }


def _finding(one: Mapping[str, Any]) -> Sequence[str]:
    allowed = f"{'≥' if one['at_least'] else '≤'} {one['allowed']:.3g}"
    error = "–" if one["error"] is None else f"{one['error']:.3g}"
    return "ok" if one["holds"] else "NO", one["name"], error, allowed, one["why"]


def _cost(name: str, cost: Mapping[str, Any]) -> Sequence[str]:
    peak = "–" if cost["peak_mb"] is None else f"{cost['peak_mb']:,.0f}"
    acted = "–" if cost["acted"] is None else f"{cost['acted']} of {cost['steps']} steps"
    return name, f"{cost['first_ms']:.1f}", f"{cost['token_ms']:.1f}", peak, acted


def _bullets(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)
