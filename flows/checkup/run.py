"""`veridical check`: is a model understood, do the methods hold on it, what do they cost? A report of plain values."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from ...pipelines.chain import chain, decoders_alone
from ..evaluation import manifest, provenance

if TYPE_CHECKING:
    from ...pipelines.checkup.case import Case, Finding
    from ...pipelines.lvlm import LVLM

TOKENS, QUICK_TOKENS = 8, 2
Report = dict[str, Any]


def check(
    lvlm: LVLM, image: Any, decoders: Sequence[str], detectors: Sequence[str], quick: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Report:
    """Check a loaded model with one image.

    Args:
        image: as `caption` takes it. decoders, detectors: names as on the command line.
        quick: fewer tokens, no times and no memory.
        advance: called with the number of finished steps, of `1 + len(decoders) + len(detectors)`.

    Returns a report: "holds"; "findings", what was checked with its error; "not_checked", method -> reason; "costs",
    method -> time and memory; and what all this depends on.
    """
    from ...pipelines.checkup.case import Case, reason
    from ...pipelines.inputs.images import read_image
    from ...pipelines.model.memory import estimate
    from .cost import cost

    case = Case(lvlm, read_image(image), QUICK_TOKENS if quick else TOKENS)
    findings = list(_model(case))
    advance(1)
    skipped: dict[str, str] = {}
    costs: dict[str, Any] = {}
    for kind, names in (("decoder", decoders), ("detector", detectors)):
        for name in names:
            why = _refusal(case, kind, name)
            if why is not None:
                skipped[name] = why
            else:
                findings += _decoder(case, name) if kind == "decoder" else _detector(case, name)
                if not quick:
                    measured = _tried(f"cost of {name}", partial(cost, case, kind, name))
                    costs |= {name: measured} if isinstance(measured, dict) else {}
                    findings += [] if isinstance(measured, dict) else measured
            advance(1)
    prompt = lvlm.settings(_question(), [], [], None, {})["prompt"]
    return {
        "holds": all(finding.holds for finding in findings), "findings": [_plain(finding) for finding in findings],
        "not_checked": skipped, "costs": costs, "tokens": case.tokens, "image": list(case.image.size),
        "prompt": prompt, "tolerances": reason(lvlm.dtype), "model": about_model(lvlm),
        "estimate": asdict(estimate(lvlm)), "versions": provenance.versions(), "hardware": provenance.hardware(),
    }  # fmt: skip


def about_model(lvlm: LVLM) -> dict[str, Any]:
    """What a report says of a model."""
    return {
        **manifest.about_model(lvlm), "model_type": lvlm.model.config.model_type,
        "decoder": type(lvlm.decoder).__name__, "layers": len(lvlm.layers), "heads": lvlm.heads,
        "hidden": lvlm.hidden_size, "processor": type(lvlm.processor).__name__,
        "parameters": sum(weight.numel() for weight in lvlm.model.parameters()),
    }  # fmt: skip


# -- the checks ----------------------------------------------------------------------------------------------------
def _model(case: Case) -> Iterator[Finding]:
    from ...pipelines.checkup import engine, layout

    yield from _tried("image mask", lambda: list(layout.image_mask(case)))
    yield from _tried("unembed(last block) = logits", lambda: [layout.unembed(case)])
    yield from _tried("readings = eager attentions", lambda: [layout.readings(case)])
    yield from _tried("no method = transformers' generate", lambda: [engine.plain(case)])
    yield from _tried("edits", lambda: list(engine.edits(case)))
    yield from _tried("batch = single", lambda: [engine.batch(case)])
    yield from _tried("cached = uncached", lambda: [engine.cached(case)])


def _decoder(case: Case, name: str) -> list[Finding]:
    from ...pipelines.checkup.engine import neutral, runs

    found = _tried(f"{name} runs", lambda: [runs(case, name, chain(name, case.lvlm.name))])
    plain = name.partition(":")[0]
    settings = neutral_settings(plain) if "+" not in name else []
    if settings:
        found += _tried(f"neutral {plain} = plain", lambda: [neutral(case, plain, settings)])
    return found


def neutral_settings(name: str) -> list[str]:
    """Settings at which a registered decoder is plain decoding, and faint ones beside them, as on the command line."""
    from ...pipelines.registry import DECODERS

    cls = DECODERS.type(name) if name in DECODERS.names else None
    fields, faint = getattr(cls, "neutral", None), getattr(cls, "faint", None)
    if fields is None:
        return []
    text = lambda values: f"{name}:{','.join(f'{field}={value!r}' for field, value in values.items())}".rstrip(":")
    return [text(fields), *([text({**fields, **faint})] if faint else [])]


def _detector(case: Case, name: str) -> list[Finding]:
    from ...pipelines.checkup.engine import detector

    return _tried(f"{name}: decoding = finished text", lambda: [detector(case, name)])


def _refusal(case: Case, kind: str, name: str) -> str | None:
    """Why a method does not work with this model, in its own words; None if it does.

    A decoder says so when it declares its edits, a detector when it rates (it may want a probe that there is not).
    """
    from ...pipelines.generate import score

    try:
        if kind == "decoder":
            for method in decoders_alone(chain(name, case.lvlm.name), "veridical check"):
                list(method.edits(case.lvlm, case.alone[0]))
        else:
            score(case.lvlm, case.alone[0], case.chosen[:1, :1], [name])
    except (ValueError, OSError, LookupError, ImportError, NotImplementedError) as error:
        return _line(error)
    except Exception:
        return None  # no refusal: what goes wrong is found when it runs
    return None


def _tried(name: str, run: Callable[[], Any]) -> Any:
    """What `run` returns; a finding that does not hold if it raises."""
    from ...pipelines.checkup.case import Finding

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()
    except Exception as error:
        return [Finding(name, None, 0, f"{type(error).__name__}: {_line(error)}")]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def _question() -> str:
    from ...pipelines.checkup.case import QUESTIONS

    return QUESTIONS[0]


def _plain(finding: Finding) -> Mapping[str, Any]:
    """A finding as plain values. An error that is no number says why."""
    record = asdict(finding) | {"holds": finding.holds}
    if finding.error is not None and finding.error == float("inf"):
        record |= {"error": None, "why": f"a token is cut or no number on one side alone; {finding.why}".rstrip("; ")}
    return record
