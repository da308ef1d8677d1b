"""Jobs that are killed, as a program of its own: the model is loaded once, each job is a fork, SIGKILL is real.

python job_nursery.py MANY KILLS FEW OUT. Of the images in MANY: an undisturbed job in OUT/whole; one in OUT/killed
that is killed KILLS times at random moments and then left to finish. Of those in FEW, without the model: an undisturbed
job in OUT/points/0; for each fsync and rename that it makes, one in OUT/points/<number> that is killed just before it,
and then left to finish. Likewise in OUT/retry, after one image was mended, for jobs that ask again for what had an
error. Prints what happened as JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import torch

from veridical.flows.captioning import run
from veridical.flows.captioning.job import LEDGER
from veridical.flows.captioning.request import EMBEDDED, Captioning
from veridical.pipelines.model.spec import load

torch.set_num_threads(1)
SAMPLED = {"max_new_tokens": 3, "do_sample": True, "temperature": 3.0, "top_k": 0, "top_p": 1.0}


def job(images: str, out: Path, retry_errors: bool = False) -> None:
    request = Captioning(
        [images], shard_size=10, batch_size=4, detectors=["entropy"], generation=SAMPLED, attention_maps=5
    )
    run.captioning(request, str(out), retry_errors)


def born(work) -> int:
    """Do something in a child process. Returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # its progress bar
        work()
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def finished(work) -> None:
    if code := ended(born(work)):
        sys.exit(f"a job that nobody disturbed ended with {code}")


def shards(out: Path) -> int:
    path = out / LEDGER
    return path.read_bytes().count(b"\n") if path.exists() else 0


def at_random(images: str, base: Path, kills: int) -> dict:
    began = time.perf_counter()
    finished(lambda: job(images, base / "whole"))
    length = time.perf_counter() - began
    dice, moments, done = random.Random(0), [], []
    while len(moments) < kills:
        child = born(lambda: job(images, base / "killed"))
        wait = dice.uniform(0.02, 1.6 * length / kills)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        if ended(child) != -signal.SIGKILL:
            break  # it was quicker
        moments.append(round(wait, 3))
        done.append(shards(base / "killed"))
    finished(lambda: job(images, base / "killed"))
    return {"kills": len(moments), "after": moments, "shards": done, "seconds": round(length, 2)}


def at_points(images: str, base: Path, before: Path | None = None) -> int:
    """Kills a job at each point, and says how many there were. before: a finished one, to be asked again for errors.

    What is tested is writing: answers are made up. They name the images of their batch, and so have other bytes if a
    batch is another one.
    """
    from veridical.pipelines.results import Answer

    def canned(self, images, *arguments, seed, **options):
        corners = [image.getpixel((0, 0)) for image in images]
        return [Answer(f"{corner} with seed {one} of {seed}") for corner, one in zip(corners, seed, strict=True)]

    def quick(out: Path) -> None:
        type(load(EMBEDDED)).answer = canned
        job(images, out, before is not None)

    def built(number: int) -> Path:
        if before is not None:
            shutil.copytree(before, base / str(number))
        return base / str(number)

    def dying(number: int, out: Path) -> None:
        """Dies before the call of that number, counted over both; writes how many there were."""
        count = 0

        def deadly(call):
            def counted(*arguments):
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments)

            return counted

        os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
        quick(out)
        (base / "count").write_text(str(count))

    base.mkdir()
    finished(lambda: dying(0, built(0)))
    points = int((base / "count").read_text())
    for number in range(1, points + 1):
        out = built(number)
        if (code := ended(born(partial(dying, number, out)))) != -signal.SIGKILL:
            sys.exit(f"the job was to be killed at {number} and ended with {code}")
        finished(partial(quick, out))
    return points


if __name__ == "__main__":
    many, kills, few, base = sys.argv[1:]
    job(few, Path(base, "warm"))  # loads the model and all modules, which every child then has
    report = {**at_random(many, Path(base), int(kills)), "points": at_points(few, Path(base, "points"))}
    bad = Path(json.loads(Path(base, "points", "0", "errors.jsonl").read_text("utf-8"))["path"])
    shutil.copy(next(path for path in bad.parent.iterdir() if path != bad), bad)
    print(json.dumps({**report, "retry": at_points(few, Path(base, "retry"), Path(base, "points", "0"))}))
