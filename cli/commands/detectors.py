"""`veridical train-detector` and `veridical evaluate-detectors`: probes, and how well detectors find hallucinations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options as o
from ..errors import hush_transformers, notes
from ..worker_options import Prefect, under_prefect

if TYPE_CHECKING:
    from ...flows.detection.request import Detection

app = typer.Typer(rich_markup_mode="rich")

Task = Annotated[str, typer.Option(help='"captions", judged by mention; or "pope", by answer.')]
TestImages = Annotated[int, typer.Option(min=1, help="The number of images that detectors are judged on.")]
Coco = Annotated[Path | None, typer.Option(help="A COCO folder instead of the embedded world.", show_default=False)]
TestSplit = Annotated[
    str | None, typer.Option(help="The split for judging.", show_default="test, or the folder's only one")
]
Synonyms = Annotated[
    Path | None, typer.Option(help="CHAIR's synonym file, for real COCO.", show_default="the world's vocabulary")
]
DrawSeed = Annotated[int, typer.Option(min=0, help="The seed of images, negatives, training and the random risk.")]
UNTRAINED = (
    "token_probability", "entropy", "margin", "image_attention", "logit_lens", "lookback_lens:weights=none", "vhd",
)  # fmt: skip


@app.command(
    "train-detector",
    epilog=o.worked(
        "veridical train-detector --detector lookback_lens --task captions --out my-detector",
        "# and use it", "veridical detect photo.png -t lookback_lens:weights=my-detector",
        "# yes/no answers, another model, real images",
        "veridical train-detector --detector dhcp --task pope -m llava-hf/llava-1.5-7b-hf --coco coco --out my-dhcp",
    ),
)  # fmt: skip
def train_detector(
    detector: Annotated[
        str,
        typer.Option("--detector", "-t", help="The detector that is trained: lookback_lens, dhcp or halp."),
    ],
    out: Annotated[Path, typer.Option(help="The folder for the detector, its texts and its results.")],
    task: Task = "captions", model: o.Model = "embedded",
    images: Annotated[int, typer.Option(min=1, help="The number of training images.")] = 2000,
    test_images: TestImages = 500,
    unit: Annotated[
        str, typer.Option(help="The unit of captions: words, mentions, tokens, spans or windows.")
    ] = "words",
    classes: Annotated[
        int, typer.Option(min=2, max=4, help="The classes of dhcp on answers: 2, or 4 (yes and no apart).")
    ] = 2,
    hidden: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="128, as in the paper",
            help="The hidden units of dhcp: the probe takes two bytes for each unit and feature.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Also save the detector alone in this folder: two files.", show_default=False)
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(
            help="Another detector that is judged beside it; repeat the option for several.",
            show_default="nothing but the controls",
        )
    ] = None,
    coco: Coco = None,
    split: Annotated[
        str | None, typer.Option(help="The split for training; the one for judging is cut by image.")
    ] = None,
    test_split: TestSplit = None, synonyms: Synonyms = None, seed: DrawSeed = 0, batch_size: o.BatchSize = 32,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None, prefect: Prefect = None,
) -> None:  # fmt: skip
    """Train a detector on the model's own texts and judge it on images that it has not seen."""
    from ...flows.detection import steps

    if classes == 3:
        raise ValueError("--classes 3 has no meaning; possible: 2 (right, wrong), or 4 (yes and no apart).")
    from ...flows.detection.request import Detection
    from ...pipelines.model.spec import ModelSpec

    request = Detection(
        task, list(against or []), detector, unit, classes, images, test_images,
        ModelSpec(model, device, dtype, revision), _text(coco), split, test_split, _text(synonyms), seed, batch_size,
        hidden=hidden,
    )  # fmt: skip
    _run(request, out, prefect)
    folder = out if save is None else steps.save(str(out), str(save))
    typer.echo(f'detector: {folder}; use it as "{detector.partition(":")[0]}:weights={folder}"')


@app.command(
    "evaluate-detectors",
    epilog=o.worked(
        "veridical evaluate-detectors --task captions --out runs/detectors",
        "# some alone", "veridical evaluate-detectors --task pope -t margin -t dhcp --out runs/pope",
    ),
)  # fmt: skip
def evaluate_detectors(
    out: Annotated[Path, typer.Option(help="The folder for texts and results.")],
    task: Task = "captions",
    detector: Annotated[
        list[str] | None,
        typer.Option(
            "--detector", "-t", metavar="NAME[:FIELD=VALUE,...]", show_default="all that fit the task",
            help="A detector that is judged; repeat the option for several.",
        ),
    ] = None,
    model: o.Model = "embedded", test_images: TestImages = 1000, coco: Coco = None, test_split: TestSplit = None,
    synonyms: Synonyms = None, seed: DrawSeed = 0, batch_size: o.BatchSize = 32, device: o.Device = "auto",
    dtype: o.Dtype = "auto", revision: o.Revision = None, prefect: Prefect = None,
    card: Annotated[
        Path | None, typer.Option(help="Also write a model card for the trained detectors beside it.", hidden=True)
    ] = None,
    beside: Annotated[list[Path] | None, typer.Option(help="More results for the card.", hidden=True)] = None,
) -> None:  # fmt: skip
    """Judge detectors: AUROC, AUPRC and calibration with intervals by image, beside position and chance."""
    from ...flows.detection.request import Detection
    from ...pipelines.model.spec import ModelSpec

    own = {"captions": ("lookback_lens",), "pope": ("dhcp",)}.get(task, ()) if model == "embedded" else ()
    request = Detection(
        task, list(detector or (*UNTRAINED, *own)), test_images=test_images,
        model=ModelSpec(model, device, dtype, revision), coco=_text(coco), test_split=test_split,
        synonyms=_text(synonyms), seed=seed, batch_size=batch_size,
    )  # fmt: skip
    _run(request, out, prefect)
    if card is not None:
        from ...flows.detection.table import write_card

        typer.echo(f"card: {write_card(card, [str(folder) for folder in (*(beside or []), out)])}")


@app.command(
    "calibrate-detectors",
    epilog=o.worked(
        "veridical evaluate-detectors --task captions --test-split validation --out runs/validation",
        "veridical evaluate-detectors --task captions --out runs/test",
        "veridical calibrate-detectors runs/validation --test runs/test --out calibrations",
    ),
)  # fmt: skip
def calibrate_detectors(
    runs: Annotated[
        list[Path], typer.Argument(help="Curves are fitted to the risks in these folders of evaluate-detectors.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the calibrations, one file per detector.")],
    test: Annotated[
        list[Path] | None, typer.Option(
            help="A folder of evaluate-detectors on other images; repeat the option for several.",
            show_default="half of the images of each run",
        )
    ] = None,
    kind: Annotated[
        str, typer.Option(help='"isotonic", any rising curve; or "platt", a logistic one, for few items.')
    ] = "isotonic",
) -> None:  # fmt: skip
    """Turn detectors' risks into probabilities, and measure on other images how far they can be trusted."""
    from ...flows.detection.calibrate import calibrate
    from ..render import detectors

    hush_transformers()
    with notes():
        detectors.calibrated(calibrate([str(run) for run in runs], [str(one) for one in test or []], str(out), kind))
    typer.echo(f'calibrations: {out}; --calibrations {out} of caption and answer uses them')


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _run(request: Detection, out: Path, prefect: bool | None) -> None:
    from ...flows.detection import steps
    from ..render import detectors

    hush_transformers()
    with notes():
        if not under_prefect(prefect):
            steps.detection(request, str(out), steps.LOGGED)
        else:
            from ...flows import detectors as flows

            flow = flows.train_detector if request.trained else flows.evaluate_detectors
            flow(request, str(out))
    detectors.results(out)
