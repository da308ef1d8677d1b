"""Published methods that call the model several times per answer. Adding one adds a row to NAMES."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...pipelines.registry import Method, lazily

if TYPE_CHECKING:
    from .drop import Drop as Drop
    from .erase import Erase as Erase
    from .flip import Flip as Flip
    from .guided import Guided as Guided
    from .mvp import MVP as MVP
    from .reask import Reask as Reask
    from .vicrop import ViCrop as ViCrop

NAMES = {
    "mvp": Method(
        "mvp:MVP", paper="2408.17150",
        changes="nothing inside: asks beside three captions and adds up several answers",
        cost="3 captions, and 3 · (1 + paths) short answers per question",
        differs=(
            "The code counts a direct Yes or No without its certainty and a path without an answer as Yes; as released "
            "it cannot run. official() scores as it does; the paper's formulas could not be read."
        ),
    ),
    "vicrop": Method(
        "vicrop:ViCrop", paper="2502.17422",
        changes="nothing inside: adds a crop of the image to the prompt",
        cost="1 extra prefill of two rows (with gradients: 1 or 2 passes back), twice the image tokens",
        differs=(
            "The code crops at the top left where no window stands out, shows images smaller than the crop twice, "
            "stretches a centre crop's map over oblong images, and filters edges by 7 pixels, not 3. official() does "
            "so."
        ),
        families=(
            "models with one rectangle of image positions per image and room for two images; not InstructBLIP, "
            "LLaVA-NeXT, LLaVA-OneVision, or images cut into tiles"
        ),
    ),
    "guided": Method(
        "guided:Guided", paper="2407.07071",
        changes="which of several sampled continuations is kept, by a detector",
        cost="candidates · (tokens / chunk + 1) / 2 forwards per token, batched",
        differs=(
            "The paper goes on from the kept chunk's cache and rates the mean of its features; the code may run past "
            "the most new tokens."
        ),
    ),
    "erase": Method(
        "erase:Erase", paper="2410.02762",
        changes="captions again, with the objects erased that the model itself does not see",
        cost="its detector's, and the caption again for images with such an object",
        differs=(
            "The captions in the code's repository start from OPERA's and not from plain ones; layers and strength are "
            "project_away's. official() is the same."
        ),
    ),
    "flip": Method("flip:Flip", paper="2411.18659", changes="a yes or no whose risk is high", cost="its detector's"),
    "drop": Method("drop:Drop", changes="leaves out sentences whose risk is high", cost="its detector's"),
    "reask": Method(
        "reask:Reask",
        changes="asks once more for sentences whose risk is high",
        cost="its detector's, and the text again for each such sentence",
    ),
}
__getattr__, __dir__ = lazily(__name__, NAMES)
