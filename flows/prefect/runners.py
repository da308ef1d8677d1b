"""Several workers for one job: Prefect's task runners for Dask and Ray, one model per worker, shards as their tasks.

A worker that dies is replaced, and what it was at is done again by another. Importing this module imports no Prefect.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from ..files.run_warnings import begin_run, warn_once
from . import telemetry

RUNNERS = ("local", "dask", "ray", "accelerate")
OF_PREFECT = ("dask", "ray")  # its task runners
_EXTRA = {"dask": "prefect_dask", "ray": "prefect_ray"}
AHEAD = 4  # tasks per worker that are handed out before one is finished
LOOPBACK = "127.0.0.1"
# of Dask's processes, whose page of figures listens too, on another address unless it is named
_ONLY_HERE = {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0"}
RAY = (2, 52)  # the first with a token that its processes ask of each other
RAY_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": Ray listens on loopback alone, on Linux too
F = TypeVar("F")


class NoRunner(ValueError):
    """A runner that cannot be used here; the message says what to install or to change."""


def check(kind: str, workers: int | None, address: str | None) -> None:
    """Refuse what cannot run, before anything is loaded.

    Raises:
        NoRunner: an unknown runner, one whose packages are missing, or options that it does not take.
    """
    if kind not in RUNNERS:
        raise NoRunner(f"no runner {kind!r}. Known: {', '.join(RUNNERS)}.")
    if kind in _EXTRA and importlib.util.find_spec(_EXTRA[kind]) is None:
        name = _EXTRA[kind].replace("_", "-")
        raise NoRunner(f"--runner {kind} needs the package {name}: pip install 'veridical[{kind}]'")
    if kind == "ray" and _version("ray") < RAY:
        raise NoRunner(
            f"--runner ray needs ray {'.'.join(map(str, RAY))} or newer, which asks for a token before it runs code; "
            f"found {importlib.metadata.version('ray')}: pip install --upgrade 'veridical[ray]'"
        )
    if kind in ("local", "accelerate") and (workers is not None or address is not None):
        more = "`accelerate launch` says how many" if kind == "accelerate" else "use --runner dask or ray"
        raise NoRunner(f"--runner {kind} takes no --workers or --cluster: {more}.")
    if workers is not None and address is not None:
        raise NoRunner("--workers starts workers here and --cluster uses those of a cluster: choose one of the two.")


class WorkersDied(OSError):
    """One piece of work killed its workers, one after another; the message says which."""


@contextmanager
def running(flow: F, kind: str, workers: int | None, address: str | None, gpus: int | None = None) -> Iterator[F]:
    """The flow with its tasks on workers, for the length of a block; a local one is as it was.

    Args:
        workers: started here; None is one per GPU, and without a GPU one per two cores. address: of a cluster that
            runs already.
        gpus: that each worker has for itself; None is 1 if this machine has any. Workers of a Dask cluster have them
            as the resource GPU (`dask worker --resources GPU=1`), those of Ray as `num_gpus`.

    Raises:
        NoRunner: as `check`, or no worker of the cluster has that many GPUs.
    """
    check(kind, workers, address)
    if kind == "local":
        with telemetry.brief(), one_server():
            yield flow
        return
    if kind == "accelerate":
        raise NoRunner("--runner accelerate is for `veridical caption … --out`: use local, dask or ray.")
    gpus = min(_gpus(), 1) if gpus is None else gpus
    count = workers or _gpus() or max(1, (os.cpu_count() or 2) // 2)
    with ExitStack() as stack:
        stack.enter_context(telemetry.brief())
        stack.enter_context(one_server())
        spread_over = (_dask if kind == "dask" else _ray)(stack, count, address, gpus)
        flow_: Any = flow
        yield flow_.with_options(task_runner=spread_over)


@contextmanager
def one_server() -> Iterator[None]:
    """A Prefect server for a block: the configured one, or a temporary one that ends with this process."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from . import temporary_server

    if PREFECT_API_URL.value():
        yield
        return
    with temporary_server.running() as url, temporary_settings({PREFECT_API_URL: url}):
        yield


def is_away() -> bool:
    """Whether the tasks of this flow run go to other processes."""
    from prefect.context import FlowRunContext
    from prefect.task_runners import ThreadPoolTaskRunner

    context = FlowRunContext.get()
    return context is not None and not isinstance(context.task_runner, ThreadPoolTaskRunner)


def elsewhere(task: Any) -> Callable[..., Any]:
    """A task that begins a run on a worker and returns the run's folder, waited for; its warnings are shown here."""

    def waited(*arguments: Any) -> Any:
        folder, caught = task.submit(*arguments).result()
        begin_run(folder)
        warn_once(folder, caught)
        return folder

    return waited


def with_warnings(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that returns its result and its warnings, which would stay on the worker."""
    from functools import wraps

    @wraps(step)
    def both(*arguments: Any, **named: Any) -> tuple[Any, list[Warning]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = step(*arguments, **named)
        ours = [w.message for w in caught if type(w.message).__module__.startswith("veridical.")]
        return result, [one for one in ours if isinstance(one, Warning)]

    return both


def spread(task: Any, calls: Sequence[Sequence[Any]]) -> Iterator[tuple[int, Any]]:
    """Tasks on workers, a few per worker at a time; gives the number of each call and its result as they finish."""
    from prefect.futures import as_completed

    window = AHEAD * _width()
    waiting = iter(enumerate(calls))
    pending: dict[Any, int] = {}
    while True:
        for number, call in waiting:
            pending[task.submit(*call)] = number
            if len(pending) >= window:
                break
        if not pending:
            return
        done = next(iter(as_completed(list(pending))))
        number = pending.pop(done)
        try:
            result = done.result()
        except Exception as error:
            if type(error).__name__ not in ("KilledWorker", "WorkerCrashedError"):
                raise
            raise WorkersDied(
                f"{task.name} {calls[number]} ended every worker that tried it, so it is not tried again. What was "
                "finished is kept; the same command with --runner local may show why"
            ) from error
        yield number, result


# -- helpers -------------------------------------------------------------------------------------------------------
def _dask(stack: ExitStack, workers: int, address: str | None, gpus: int) -> Any:
    import dask
    from prefect_dask import DaskTaskRunner

    if gpus:
        stack.enter_context(dask.annotate(resources={"GPU": gpus}))
    if address is None:
        kind: Any = cluster  # called with cluster_kwargs, which the declared type does not say
        return DaskTaskRunner(cluster_class=kind, cluster_kwargs={"workers": workers, "gpus": gpus})
    from distributed import Client

    with Client(address, timeout=30, set_as_default=False) as client:
        there = client.scheduler_info(n_workers=-1)["workers"].values()
    if not there or (gpus and not any(worker["resources"].get("GPU", 0) >= gpus for worker in there)):
        raise NoRunner(
            f"none of {len(there)} workers at {address} has {gpus} GPU for itself: start them with `dask worker "
            f"{address} --nthreads 1 --resources GPU={gpus}`, or say --gpus-per-worker 0."
        )
    return DaskTaskRunner(address=address)


def cluster(workers: int, gpus: int = 0) -> Any:
    """A Dask cluster on this machine: processes of one thread, each with GPUs that no other sees.

    All of them listen on this machine's loopback alone, for whoever reaches a worker can have it run any code.
    Memory is not limited: a model is as large as it is, and a worker that is stopped for it would be stopped again.
    """
    from distributed import Nanny, Scheduler, SpecCluster

    seen = _visible()
    spec = {}
    for number in range(workers):
        mine = seen[number * gpus : (number + 1) * gpus]
        if len(mine) < gpus:
            raise NoRunner(f"{workers} workers with {gpus} GPU each, but {len(seen)} GPUs here: use fewer --workers.")
        spec[number] = {"cls": Nanny, "options": {
            "nthreads": 1, "memory_limit": 0, "dashboard": False, **_ONLY_HERE,
            "resources": {"GPU": gpus} if gpus else None,
            "env": {"CUDA_VISIBLE_DEVICES": ",".join(mine)} if gpus else {},
        }}  # fmt: skip
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0, **_ONLY_HERE}}
    return SpecCluster(workers=spec, scheduler=scheduler, name="veridical")


def _ray(stack: ExitStack, workers: int, address: str | None, gpus: int) -> Any:
    if address is None:
        stack.enter_context(_closed())  # before Ray is imported
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    # max_calls=0 keeps a worker, and its model, for the next shard; Ray would end those with a GPU after each
    stack.enter_context(remote_options(num_cpus=1, num_gpus=gpus, max_calls=0, max_retries=3))
    if address is not None:
        return RayTaskRunner(address=address)
    return RayTaskRunner(init_kwargs={"num_cpus": workers, "include_dashboard": False})


@contextmanager
def _closed() -> Iterator[None]:
    """A local Ray that nobody else reaches: its processes ask each other for a secret, and listen on loopback.

    Ray reads these variables when it is imported and started. Those that the user has set stay.
    """
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), RAY_CLUSTERS: "0"}
    if "RAY_AUTH_MODE" in os.environ:
        del wanted["RAY_AUTH_MODE"], wanted["RAY_AUTH_TOKEN"]
    changes = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ |= changes
    try:
        yield
    finally:
        for name in changes:
            os.environ.pop(name, None)


def _version(package: str) -> tuple[int, ...]:
    """The first two numbers of an installed version; one that cannot be read is new enough."""
    numbers = importlib.metadata.version(package).split(".")[:2]
    return tuple(map(int, numbers)) if all(map(str.isdigit, numbers)) else (999,)


def _width() -> int:
    """How many workers the runner of this flow run has; 8 where it does not tell."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    client = getattr(getattr(context, "task_runner", None), "client", None)
    return max(1, len(client.scheduler_info(n_workers=-1)["workers"])) if client is not None else 8


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _visible() -> list[str]:
    """The GPUs of this process, by the names that CUDA_VISIBLE_DEVICES has for them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(_gpus())] if named is None else [n for n in named.split(",") if n]
