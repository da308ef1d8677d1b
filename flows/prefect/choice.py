"""Whether a command is a flow of Prefect's: where a server is configured. Imports no Prefect, which takes seconds."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

ADDRESS = "PREFECT_API_URL"


def has_server() -> bool:
    """Whether a server is configured: in the environment, or in the active profile of `prefect profile`."""
    if ADDRESS in os.environ:
        return bool(os.environ[ADDRESS])
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect")
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        profiles = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    return bool(profiles.get("profiles", {}).get(active, {}).get(ADDRESS))
