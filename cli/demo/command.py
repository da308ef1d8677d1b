"""`veridical demo`: a page to try decoders and detectors on images of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import options as o
from ..errors import hush_transformers, notes

LOOPBACK = "127.0.0.1"
app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "veridical demo", "# another model", "veridical demo -m llava-hf/llava-1.5-7b-hf",
        "# real photos among the examples", "veridical data photos", "veridical demo --port 7861",
    )
)  # fmt: skip
def demo(
    model: o.Model = "embedded", device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
    host: Annotated[str, typer.Option(help="The address that is listened on: this machine's own.")] = LOOPBACK,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port.", show_default="the first free from 7860 on")
    ] = None,
) -> None:  # fmt: skip
    """Open a page to try: plain and mitigated texts about an image side by side, with risks and attention.

    It is served on this machine alone, sends nothing anywhere, and needs the extra `demo` (Gradio).
    """
    from .page import launch, require

    require()
    if host not in (LOOPBACK, "localhost", "::1"):
        typer.echo(f"note: {host} is open to others, and the page asks nobody for a password.", err=True)
    hush_transformers()
    from ...pipelines.model.spec import ModelSpec, load

    with notes():
        lvlm = load(ModelSpec(model, device, dtype, revision, quantization, attention))
    launch(lvlm, host, port)
