"""Which flow run works in a folder, kept in the folder, so that the next one can end what a kill has left "Running".

To be called under the folder's lock: whoever has it knows that the run before has ended. Importing this module imports
no Prefect.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import UUID

from ..files import atomic
from . import telemetry

NAME = "flow_run.json"


def announced(step: Callable[..., Any], folder: int = 1) -> Callable[..., Any]:
    """A first step that settles the run before this one in its folder, and leaves a note of this one.

    folder: its place among the step's arguments.
    """

    @wraps(step)
    def noted(*arguments: Any, **named: Any) -> Any:
        out, here = Path(arguments[folder]), telemetry.current()
        if here is not None:
            settle(out, but=here["id"])
            note(out, here)
        return step(*arguments, **named)

    return noted


def note(folder: Path, run: dict[str, Any], ended: bool = False) -> None:
    """Keep which run is at work in a folder, or has ended without Prefect's knowing."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / NAME, {**run, "ended": ended})


def forget(folder: Path) -> None:
    """A run ends as it should, which Prefect sees."""
    (folder / NAME).unlink(missing_ok=True)


def settle(folder: Path, but: str | None = None) -> None:
    """Tell Prefect of a run that it still shows as running that it has ended; where it cannot be told, nothing happens.

    but: id of a run that is tried again, and so is still running.
    """
    path = folder / NAME
    if not path.is_file():
        return
    with suppress(Exception):  # a damaged note, another server, no server
        run = json.loads(path.read_text("utf-8"))
        if run["id"] != but:
            _end(UUID(run["id"]), str(run["api"]), bool(run["ended"]))
        path.unlink()


def _end(number: UUID, api: str, finished: bool) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL
    from prefect.states import Completed, Crashed

    if PREFECT_API_URL.value() != api:  # nor is a server started for this
        return
    killed: Any = Crashed(message="its process ended without a word; another one has taken its folder")
    state: Any = Completed(message="it had finished when Prefect could not be reached") if finished else killed
    with telemetry.brief(0), get_client(sync_client=True) as client:
        run = client.read_flow_run(number)
        if run.state is None or not run.state.is_final():
            client.set_flow_run_state(number, state, force=True)
