"""What other packages add by entry points: names, where they point, and who registers them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OURS = "veridical"


class Found(NamedTuple):
    """An entry point of another package: "module:Class", and the package with its version."""

    value: str
    origin: str


class Taken(NamedTuple):
    """A name that several packages register."""

    origins: tuple[str, ...]

    @property
    def why(self) -> str:
        """Why the name stands for nothing, and what to do."""
        return (
            f"the name is registered by {' and by '.join(self.origins)}, so that it could mean either; rename it in "
            'one of them, or write "module:Class" for the one that is meant.'
        )


def found(group: str, own: Iterable[str] = ()) -> tuple[dict[str, Found], dict[str, Taken]]:
    """(name -> where it points, name -> who registers it) of a group: the second are those of several packages.

    own: names that this package has itself.
    """
    from importlib.metadata import entry_points  # 25 ms, which help at the command line need not wait for

    points: dict[str, list[Found]] = {}
    for point in entry_points(group=group):
        points.setdefault(point.name, []).append(Found(point.value.split("[")[0].strip(), _origin(point)))
    alone, taken = {}, {}
    for name, all_ in sorted(points.items()):
        origins = ((OURS,) if name in set(own) else ()) + tuple(dict.fromkeys(one.origin for one in all_))
        if len(origins) > 1:
            taken[name] = Taken(origins)
        else:
            alone[name] = all_[0]
    return alone, taken


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
