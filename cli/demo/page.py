"""The page itself: inputs, examples, two texts side by side, and the image with the attention of a clicked word."""

# no annotations as text here: Gradio looks at what an event's function takes
import importlib.util
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...datasets.world import scene
from ...pipelines.inputs.prompts import DETAIL
from .describe import Side, clicked, describe

SCENES = (0, 3, 7, 17)  # of the embedded world's test split
PHOTOS = 8  # examples of real photographs, where they are there
LARGEST = "10mb"
TITLE = "veridical"


def page(lvlm: Any) -> Any:
    """The page for a loaded model, as Gradio's Blocks; `launch` serves it.

    Raises:
        ImportError: Gradio is not installed; says how to install it.
    """
    require()
    import gradio as gr

    from ...decoders import NAMES as decoders
    from ...detectors import NAMES as detectors

    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {lvlm.name}: what it says, and what the image does not support")
        state = gr.State([])
        with gr.Row():
            with gr.Column():
                image = gr.Image(label="image", type="pil", sources=["upload", "clipboard"], elem_id="image")
                question = gr.Textbox(DETAIL, label="question", max_length=500)
                methods = gr.Dropdown(
                    list(decoders), value=["vcd"], multiselect=True, label="decoders, composed in this order"
                )
                judges = gr.Dropdown(
                    list(detectors), value=["entropy"], multiselect=True,
                    label="detectors; the first one tints the words",
                )  # fmt: skip
                length = gr.Slider(8, 256, 96, step=8, label="at most so many tokens")
                button = gr.Button("Describe", variant="primary", elem_id="describe")
                gr.Examples(examples(), image, label="examples")
            with gr.Column():
                plain = gr.HighlightedText(label="plain", show_legend=False, elem_id="plain")
                mitigated = gr.HighlightedText(label="mitigated", show_legend=False, elem_id="mitigated")
                overlay = gr.Image(
                    label="attention of the clicked word, before it is written, mean over layers and heads",
                    interactive=False, elem_id="overlay", buttons=["download", "fullscreen"],
                )  # fmt: skip
                line = gr.Textbox(label="the word", interactive=False, elem_id="word")

        def run(shown: Any, request: str, chosen: list[str], reading: list[str], most: int) -> Any:
            if shown is None:
                raise gr.Error("There is no image: drop one, or click an example.")
            try:
                sides = describe(lvlm, shown, chosen, reading, request, int(most))
            except (ValueError, LookupError, OSError) as error:
                raise gr.Error(str(error), print_exception=False) from error
            texts = [side.pieces for side in sides] + [[]] * (2 - len(sides))
            return sides, *texts, None, "Click a word."

        def at(place: int) -> Any:
            def word(sides: list[Side], shown: Any, event: gr.SelectData) -> Any:
                if place >= len(sides) or shown is None:
                    return None, ""
                number = event.index if isinstance(event.index, int) else event.index[0]
                return clicked(shown, sides[place], number)

            return word

        button.click(
            run, [image, question, methods, judges, length], [state, plain, mitigated, overlay, line],
            api_name="describe", concurrency_limit=1,
        )  # fmt: skip
        plain.select(at(0), [state, image], [overlay, line], api_visibility="private")
        mitigated.select(at(1), [state, image], [overlay, line], api_visibility="private")
    return blocks


def require() -> None:
    """Raise ImportError, with what to do, where Gradio is not installed; otherwise keep it from calling home."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the page is built by Gradio, which is not installed: pip install 'veridical[demo]'.")


def launch(lvlm: Any, host: str = "127.0.0.1", port: int | None = None, wait: bool = True) -> Any:
    """Serve the page, and return it.

    Files of more than 10 MB are refused. One text is written at a time, and 16 requests may wait.
    """
    blocks = page(lvlm).queue(max_size=16, default_concurrency_limit=1)
    blocks.launch(
        server_name=host, server_port=port, share=False, max_file_size=LARGEST, show_error=True,
        prevent_thread_lock=not wait, quiet=not wait,
    )  # fmt: skip
    return blocks


def examples() -> list[str]:
    """Files of scenes that the embedded model knows, and of photos where `veridical data photos` has put them."""
    from ...datasets.coco_photos.photos import photos

    folder = Path(tempfile.mkdtemp(prefix="veridical-scenes-"))
    found = []
    for index in SCENES:
        one = scene("test", index)
        one.image.save(folder / one.name)
        found.append(str(folder / one.name))
    with suppress(FileNotFoundError):
        found += [str(photo.path) for photo in photos()[:PHOTOS]]
    return found
