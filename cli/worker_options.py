"""Options of commands that can spread their work over several workers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..flows.prefect import choice, runners

_WORKERS = "Several workers"


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_WORKERS, **settings)


Runner = Annotated[str, _option("--runner", help='The workers: "local", "dask" or "ray".')]
JobRunner = Annotated[str, _option("--runner", help='The workers: "local", "dask", "ray" or "accelerate".')]
Workers = Annotated[
    int | None,
    _option(
        "--workers", min=1, help="The number of workers that dask or ray starts on this machine.",
        show_default="one per GPU",
    ),
]
Cluster = Annotated[
    str | None, _option("--cluster", help="The address of a cluster that runs already.", show_default=False)
]
GpusPerWorker = Annotated[
    int | None,
    _option("--gpus-per-worker", min=0, help="The number of GPUs of each worker.", show_default="1 if there are any"),
]


Prefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect", show_default="a flow where a Prefect server is configured",
        help="Run as a Prefect flow, on a temporary server where none is configured; --no-prefect runs the same steps "
        "without Prefect.",
    ),
]  # fmt: skip


def under_prefect(wanted: bool | None, runner: str = "local") -> bool:
    """Whether a command runs as a flow of Prefect's.

    Args:
        wanted: --prefect or --no-prefect; None where neither is given. runner: two of them are Prefect's.
    """
    if wanted is None:
        return runner in runners.OF_PREFECT or choice.has_server()
    return wanted


@dataclass(frozen=True)
class Spread:
    """These options of one command."""

    runner: str
    workers: int | None
    cluster: str | None
    gpus: int | None

    def check(self, no_prefect: bool) -> None:
        """Refuse what cannot run.

        Raises:
            NoRunner: as `runners.check`, or a task runner of Prefect's without Prefect.
        """
        runners.check(self.runner, self.workers, self.cluster)
        if no_prefect and self.runner in runners.OF_PREFECT:
            raise runners.NoRunner(f"--runner {self.runner} is one of Prefect's task runners: not with --no-prefect.")

    def refuse(self) -> None:
        """Refuse any of them where there is no job.

        Raises:
            NoRunner: says what to add.
        """
        if self != Spread("local", None, None, None):
            raise runners.NoRunner("--runner, --workers and --cluster are for many images: add --out FOLDER.")

    def running(self, flow: Any) -> AbstractContextManager[Any]:
        """The flow on these workers, as `runners.running`."""
        return runners.running(flow, self.runner, self.workers, self.cluster, self.gpus)
