"""A captioning job by the processes that `accelerate launch` starts on one machine: one model and one GPU each.

Each takes every n-th shard. They meet in the job's folder and at two barriers; there is
no Prefect in it. One that dies ends the launch, and the same command goes on.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..captioning import job, run
from ..captioning.request import Captioning
from ..captioning.watch import UNWATCHED, Watch
from .runners import NoRunner, check

RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK")
LONGEST = datetime.timedelta(days=30)  # that a process waits for the others


def caption(
    request: Captioning, out: str, retry_errors: bool = False, watch: Watch = UNWATCHED, add: bool = False
) -> str | None:  # fmt: skip
    """`captioning.captioning` by all processes of a launch together.

    Returns the path of summary.json in the first process, None in the others.

    Raises:
        NoRunner: this process is not one of a launch.
        as `captioning.captioning`.
    """
    check("accelerate", None, None)
    rank, on_cpu = _rank(), os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if rank is None and not on_cpu:
        raise NoRunner(
            "--runner accelerate is for processes that accelerate starts: `accelerate launch --multi_gpu "
            "--num_processes 8 --no_python veridical caption … --runner accelerate`."
        )
    if on_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        _take_gpu(rank or 0)
    from accelerate import PartialState

    state = PartialState(cpu=True, timeout=LONGEST)  # barriers go over the CPU: the GPUs belong to the models
    if state.is_main_process:
        return run.captioning(request, out, retry_errors, run.Steps(begin=_begin, each=_each), watch, add)
    state.wait_for_everyone()  # until the plan is there
    task = job.Job.read(out)
    for number in _mine(job.remaining(task, job.ledger(task), retry_errors), state):
        run.caption_shard(out, number, retry_errors)
    state.wait_for_everyone()
    return None


# -- the first process ---------------------------------------------------------------------------------------------
def _begin(request: Captioning, out: str, add: bool) -> str:
    from accelerate import PartialState

    run.begin(request, out, add)
    PartialState().wait_for_everyone()
    return out


def _each(
    shard: Callable[..., str], out: str, numbers: Sequence[int], retry_errors: bool
) -> Iterator[tuple[int, str]]:  # fmt: skip
    """Make its own shards; gives those of the others too, as they appear."""
    from accelerate import PartialState

    state, task, since = PartialState(), job.Job.read(out), time.time()
    mine = _mine(numbers, state)
    others = {task.shard_path(number).name: number for number in sorted(set(numbers) - set(mine))}
    for number in mine:
        yield number, shard(out, number, retry_errors)
        with os.scandir(task.out / job.SHARDS) as found:  # one look at the folder, not one at every file
            there = [one.name for one in found if one.name in others and one.stat().st_mtime > since]
        for other in map(others.pop, there):
            yield other, str(task.shard_path(other))
    state.wait_for_everyone()
    yield from ((number, str(task.shard_path(number))) for number in others.values())


# -- helpers -------------------------------------------------------------------------------------------------------
def _mine(numbers: Sequence[int], state: Any) -> list[int]:
    """By number, not by place: processes that look at different moments agree on whose a shard is."""
    return [number for number in numbers if number % state.num_processes == state.process_index]


def _rank() -> int | None:
    """This process's number on its machine, as a launch or MPI says it.

    None outside of one, and for `accelerate launch --cpu` without MPI, which starts a single process.
    """
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), None)


def _take_gpu(rank: int) -> None:
    """Let this process see one GPU, that of its rank. To be called before torch looks for them."""
    import torch

    if torch.cuda.is_initialized():
        raise NoRunner("--runner accelerate: this process holds a GPU already; let `accelerate launch` start it.")
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = [str(number) for number in range(rank + 1)] if named is None else [n for n in named.split(",") if n]
    if rank < len(seen):
        os.environ["CUDA_VISIBLE_DEVICES"] = seen[rank]
