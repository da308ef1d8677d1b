"""A scheduled evaluation handed to Prefect's `serve`. Importing this module imports Prefect."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.exceptions import ObjectNotFound
from prefect.flows import EntrypointType
from prefect.schedules import Cron, Interval, Schedule
from prefect.settings import PREFECT_API_URL

from ..scheduled import scheduled


class NoServer(ValueError):
    """There is no Prefect server that could keep a schedule."""


class NameTaken(ValueError):
    """A deployment of that name belongs to a work pool; the message says to which."""


def gpu_limit(device: str) -> str | None:
    """The name of this machine's concurrency limit; None where the model runs on the CPU."""
    if device == "cpu":
        return None
    import torch

    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())
    return f"veridical-gpu-{host}" if torch.cuda.is_available() else None


def serve(
    settings: dict[str, Any], gpu: str | None, name: str, cron: str | None, interval: float | None, timezone: str,
    strategy: str,
) -> None:  # fmt: skip
    """Serve the deployment `scheduled evaluation/NAME`: each run starts when it is due, until this process stops.

    Args:
        settings: parameters of `scheduled` but gpu. gpu: a global concurrency limit, created with one place if missing.
        cron, interval: one of them. strategy: of Prefect's, for a run that is due while another is at work.

    Raises:
        NoServer: no server is configured. NameTaken: another deployment has the name.
        ValueError: no such cron line or timezone.
    """
    if not PREFECT_API_URL.value():
        raise NoServer(
            "a schedule needs a Prefect server to keep it: start one with `prefect server start` in another terminal, "
            "and say where with `export PREFECT_API_URL=http://127.0.0.1:4200/api`. --once needs none."
        )
    when: Schedule = Cron(cron, timezone=timezone) if cron is not None else Interval(interval or 0)
    _refuse_taken(name)
    if gpu is not None:
        _make_limit(gpu)
    # a run is a process of its own, started here: this folder must not be where it looks for `datasets`
    os.environ["PYTHONSAFEPATH"] = "1"
    if os.environ.get("PREFECT_LOGGING_LEVEL") == "CRITICAL":  # as the command line sets it, for runs that are watched
        os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
    scheduled.serve(
        name, schedule=when, parameters={**settings, "gpu": gpu}, entrypoint_type=EntrypointType.MODULE_PATH,
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy[strategy]),
    )  # fmt: skip


def _refuse_taken(name: str) -> None:
    """A deployment of our own, which has no work pool, is replaced; one of a pool is somebody else's."""
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_deployment_by_name(f"{scheduled.name}/{name}").work_pool_name
        except ObjectNotFound:
            return
    if pool is not None:
        raise NameTaken(
            f"the deployment {scheduled.name}/{name} belongs to the work pool {pool} already, and would be replaced; "
            "choose another --name."
        )


def _make_limit(name: str) -> None:
    """One that is there stays as it is: somebody may have given it more places."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            client.upsert_global_concurrency_limit_by_name(name, 1)
