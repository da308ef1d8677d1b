"""What a captioning job costs besides its captions: starting, with and without Prefect, and each shard.

    python benchmarks/job_start.py --runs 5

Every run is `veridical caption` in a process of its own, on one image or, for the cost of a shard, on 4 and 24 in
shards of one. Wall time includes what other programs on the machine take; processor time is that of the process and of
what it started, thus with Prefect's own server, but not with one that runs already.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from veridical.datasets.world import scene

COMMAND = [sys.executable, "-c", "import sys\nfrom veridical.cli.main import app\napp(sys.argv[1:])"]
FEW, MANY = 4, 24


def run(words: Sequence[object], **settings: str) -> tuple[float, float]:
    """Wall and processor seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    done = subprocess.run(
        [*COMMAND, *map(str, words)], env={**environment, **settings}, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shown(title: str, times: Sequence[tuple[float, float]], scale: float = 1.0) -> None:
    """One line: median and range of wall time, median of processor time."""
    wall, used = ([one * scale for one in column] for column in zip(*times, strict=True))
    middle, own = statistics.median(wall), statistics.median(used)
    print(f"{title:<44} {middle:7.2f} s ({min(wall):.2f} to {max(wall):.2f})   {own:7.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = range(parser.parse_args().runs)
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for number in range(MANY):
            path = base / ("few" if number < FEW else "rest") / f"{number:02d}.png"
            path.parent.mkdir(exist_ok=True)
            scene("validation", number).image.save(path)
        fresh = (base / f"out{number}" for number in range(10_000))
        job = lambda images, *more: ["caption", *images, "--out", next(fresh), "--max-new-tokens", 1, *more]
        few, many = sorted(base.glob("few/*.png")), sorted(base.glob("*/*.png"))
        single = lambda *more: job(few[:1], *more)
        print(f"{'':<44} {'wall: median (range)':<24}   {'processor':>9}   n = {len(runs)}")
        shown("veridical caption --help", [run(["caption", "--help"]) for _ in runs])
        shown("one image, --no-prefect", [run(single("--no-prefect")) for _ in runs])
        home = lambda: {"PREFECT_HOME": str(next(fresh))}
        shown("one image, Prefect's own server, first time", [run(single("--prefect"), **home()) for _ in runs])
        kept = home()
        run(single("--prefect"), **kept)
        shown("one image, Prefect's own server, later", [run(single("--prefect"), **kept) for _ in runs])
        with prefect_test_harness(server_startup_timeout=120):
            server = {"PREFECT_API_URL": PREFECT_API_URL.value()}
            shown("one image, a server that runs", [run(single(), **server) for _ in runs])
            for title, words, settings in (
                ("a shard more, --no-prefect", ["--no-prefect"], {}), ("a shard more, a server that runs", [], server),
            ):  # fmt: skip
                pairs = []
                for _ in runs:
                    short, long = (run(job(some, "--shard-size", 1, *words), **settings) for some in (few, many))
                    pairs.append((long[0] - short[0], long[1] - short[1]))
                shown(title, pairs, 1 / (MANY - FEW))


if __name__ == "__main__":
    main()
