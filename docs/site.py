"""The hook of mkdocs.yml: pages that are not in docs/, and those that the navigation does not name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = (
    "CONTRIBUTING.md",
    *(f"models/{name}/README.md" for name in ("embedded", "embedded_smollm2", "detectors", "matcher")),
)
API = {
    "api/veridical.md": (
        "veridical", "The public names of the package.",
        [f"veridical.pipelines.{name}" for name in (
            "model.load.load", "lvlm.LVLM", "results.Answer", "generate.generate", "results.Generation",
            "generate.score", "transformers_hook.mitigate",
        )],
    ),
    "api/own.md": (
        "Writing methods", "What a method derives from and declares.",
        ["veridical.pipelines.method", "veridical.pipelines.engine.declarations",
         "veridical.pipelines.engine.record.Record", "veridical.testing.contract"],
    ),
    "api/metrics.md": (
        "veridical.metrics",
        "Metrics are plain Python; none imports torch.",
        [
            f"veridical.metrics.{name}"
            for name in ("chair", "pope", "amber", "sycophancy", "counting", "rh_auc", "estimate", "paired")
        ],
    ),
    "api/plots.md": (
        "veridical.plots", "Figures, each drawn on the axis that it is handed.",
        ["veridical.pipelines.attention_maps", *(f"veridical.plots.{name}" for name in (
            "attention", "risk", "plane", "gate", "reliability",
        ))],
    ),
    "api/flows.md": (
        "veridical.flows", "Runs of many images or questions: flows of Prefect, and the same as plain functions.",
        ["veridical.flows.evaluation.request", "veridical.flows.captioning.request", "veridical.flows.evaluate",
         "veridical.flows.caption", "veridical.flows.scheduled", "veridical.flows.benchmarks.base"],
    ),
}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere and of the API, and name all of them in the navigation."""
    for name in ELSEWHERE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    pages = {**API, **dict(methods())}
    for path, (title, text, names) in pages.items():
        body = "\n".join(f"::: {name}\n" for name in names)
        files.append(File.generated(config, path, content=f"# {title}\n\n{text}\n\n{body}"))
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    more = sorted(one.src_uri for one in files.documentation_pages() if one.src_uri not in {*named, *pages, *ELSEWHERE})
    config.nav = [*config.nav, *([{"More": more}] if more else []), {"API": [*pages]}, {"Project": [*ELSEWHERE]}]
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links out of docs/ lead to the pages that `on_files` added; links to docs/ from elsewhere lead into the site."""
    if page.file.src_uri in ELSEWHERE:
        up = "../" * page.file.src_uri.count("/")
        return re.sub(r"\]\((?:\.\./)*docs/", f"]({up}", markdown)
    return re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, ELSEWHERE))})", r"](\1", markdown)


def methods() -> Iterator[tuple[str, tuple[str, str, list[str]]]]:
    """A page for the decoders, one for the procedures, one for the detectors, each with the classes of the registry."""
    from veridical.pipelines.registry import DECODERS, DETECTORS, PROCEDURES

    text = "[The catalogue](../catalogue.md) has all of them in one table."
    for registry in (DECODERS, PROCEDURES, DETECTORS):
        names = [f"{registry.package}.{row.target.replace(':', '.')}" for row in registry.own.values()]
        yield f"api/{registry.kind}s.md", (f"{registry.kind.capitalize()}s", text, names)
