"""Where tables are printed."""

import sys

from rich.console import Console


def console() -> Console:
    """Standard output; where it is no terminal, wide enough for a table."""
    return Console() if sys.stdout.isatty() else Console(width=160)
