"""All that a job's captions depend on, in plain values, and how two such records differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..evaluation import answer_file, provenance
from ..evaluation.manifest import about_model
from ..evaluation.request import shown
from . import dependencies
from .job import Job
from .request import Captioning

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM


def settings_of(request: Captioning, lvlm: LVLM, plan_sha256: str, list_sha256: str | None) -> dict[str, Any]:
    """All that a job's files depend on, in plain values.

    Batch and shard size are among them: a batch's other images may change the last bits of a logit.
    """
    from ...pipelines.registry import DETECTORS

    versions = provenance.versions()
    generation = dict(request.generation)
    about = lvlm.settings(request.question, [], [], request.system, generation)
    return {
        **about_model(lvlm), "question": request.question, "system": request.system, "prompt": about["prompt"],
        "decoders": {name: shown(name, request.model.name) for name in request.decoders},
        "detectors": {name: repr(DETECTORS.make(name)) for name in request.detectors},
        "generation": generation, "seed": request.seed, "batch size": request.batch_size,
        "shard size": request.shard_size, "format": request.form, "largest image": request.max_pixels,
        "largest file": request.max_bytes, "sources": [os.path.realpath(source) for source in request.sources],
        "list_sha256": list_sha256, "plan_sha256": plan_sha256,
        **{name: list(globs) for name, globs in request.globs._asdict().items() if globs},
        **dependencies.model_files(lvlm), **dependencies.matchers(lvlm, request.decoders),
        **dependencies.probes(lvlm, request.detectors),
        **{f"version of {name}": versions[name] for name in ("veridical", "torch", "transformers", "pillow")},
    }  # fmt: skip


def check_probes(job: Job, lvlm: LVLM) -> None:
    """Refuse detectors that were trained again while the job is at work.

    Raises:
        OtherSettings: says which.
    """
    now = dependencies.probes(lvlm, job.request.detectors)
    known = {name: job.settings[name] for name in now if name in job.settings}
    if different := answer_file.difference(known, {name: now[name] for name in known}):
        raise answer_file.OtherSettings(f"this process cannot go on with {job.out}: {different}.")


def difference(job: Job, settings: Mapping[str, Any]) -> str:
    """In what the settings of a job and these differ, as one sentence; "" if in nothing."""
    there = dict(job.settings)
    if job.version == 1:  # what it did not record cannot be compared, and it recorded sources as typed
        settings = {name: value for name, value in settings.items() if name in there}
        there = {name: value for name, value in there.items() if name in settings}
        there["sources"] = [os.path.realpath(source) for source in there["sources"]]
    return answer_file.difference(there, settings)
