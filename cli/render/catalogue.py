"""The table of methods in docs/catalogue.md, made from the registry: `python -m veridical.cli.render.catalogue`."""

from __future__ import annotations

from pathlib import Path

from ...pipelines.registry import DECODERS, DETECTORS, PROCEDURES, Registry

PAGE = Path(__file__).parent.parent.parent / "docs" / "catalogue.md"
BEGIN, END = "<!-- methods: made by python -m veridical.cli.render.catalogue -->", "<!-- /methods -->"


def rows(registry: Registry, columns: tuple[str, ...]) -> list[str]:
    """A line of the table per name of this package's own."""
    return [
        f"| `{name}` | " + " | ".join(getattr(row, column) for column in columns) + " |"
        for name, row in registry.own.items()
    ]


def markdown() -> str:
    """The tables: what each decoder and procedure changes and costs, what each detector reads and costs."""
    return "\n".join(
        [
            "| decoder | paper | changes | cost |",
            "|---|---|---|---|",
            *rows(DECODERS, ("cited", "changes", "cost")),
            "",
            "| procedure | paper | changes | cost |",
            "|---|---|---|---|",
            *rows(PROCEDURES, ("cited", "changes", "cost")),
            "",
            "| detector | paper | reads | cost beside the text |",
            "|---|---|---|---|",
            *rows(DETECTORS, ("cited", "reads", "cost")),
        ]
    )


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{markdown()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
