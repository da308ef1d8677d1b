"""The README's table of methods, made from the registry: `python -m veridical.cli.render.catalogue`."""

from __future__ import annotations

from pathlib import Path

from ...pipelines.procedures import PROCEDURES
from ...pipelines.registry import DECODERS, DETECTORS, Registry

README = Path(__file__).parent.parent.parent / "README.md"
BEGIN, END = "<!-- methods: made by python -m veridical.cli.render.catalogue -->", "<!-- /methods -->"


def rows(registry: Registry, columns: tuple[str, ...]) -> list[str]:
    """A line of the table per registered name."""
    return [
        f"| `{name}` | " + " | ".join(getattr(registry.type(name), column, "–") for column in columns) + " |"
        for name in registry.names
    ]


def markdown() -> str:
    """The tables: what each decoder and procedure changes and costs, what each detector reads."""
    return "\n".join(
        [
            "| decoder | paper | changes | cost |",
            "|---|---|---|---|",
            *rows(DECODERS, ("paper", "changes", "cost")),
            "",
            "| procedure | paper | changes | cost |",
            "|---|---|---|---|",
            *rows(PROCEDURES, ("paper", "changes", "cost")),
            "",
            "| detector | paper | reads |",
            "|---|---|---|",
            *rows(DETECTORS, ("paper", "reads")),
        ]
    )


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{markdown()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
