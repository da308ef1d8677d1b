"""What can be wrong with images, disk, memory and model, one test each: an error row that says so, never a lost one."""

import errno
import hashlib
import json
import os
import resource
import struct
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from veridical.datasets.captions import DETAIL_PROMPT
from veridical.flows.captioning import batch_retry, shard_format
from veridical.flows.captioning import images as sources
from veridical.flows.captioning import run as captioning
from veridical.flows.captioning import shard as shards
from veridical.flows.captioning.request import EMBEDDED, Captioning
from veridical.flows.files import atomic
from veridical.pipelines.inputs.images import read_bytes, read_image, read_size
from veridical.pipelines.model.spec import load
from veridical.pipelines.results import Answer

RED, BLUE = (255, 0, 0), (0, 0, 255)


def two_halves(size=(48, 32)):
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def huge(path, width=30_000, height=30_000):
    """A PNG that says it is huge and is a hundred bytes long."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))


def all_kinds(folder: Path) -> Path:
    """Good images of every awkward kind, and bad ones."""
    (folder / "sub").mkdir(parents=True)
    two_halves().save(folder / "same.png")
    two_halves().rotate(180).save(folder / "sub" / "same.png")
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(folder / "cmyk.jpg")
    Image.fromarray(np.full((40, 40), 1000, np.uint16)).save(folder / "deep.png")
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, BLUE)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    two_halves((64, 32)).save(folder / "turned.png", exif=exif)
    whole = Image.effect_noise((64, 64), 50)
    whole.save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:2000])
    whole.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    huge(folder / "huge.png")
    huge(folder / "large.png", 10_000, 10_000)
    (folder / "notes.txt").write_text("not asked for")
    return folder


BAD = {
    "cut.jpg": "cannot be read as an image", "cut.png": "cannot be read as an image", "empty.png": "has 0 bytes",
    "huge.png": "exceeds limit of 178956970 pixels", "large.png": "10000×10000 pixels; at most 50,000,000",
    "text.png": "is not an image that can be read",
}  # fmt: skip
GOOD = ("cmyk.jpg", "deep.png", "moving.gif", "same.png", "sub/same.png", "turned.png")


@pytest.fixture
def canned(monkeypatch):
    """Answers without a model: the colour of a corner. Gives the batches that were asked for, by their sizes."""
    requests: list[int] = []

    def answer(self, images, question, decoders, detectors, seed, **options):
        requests.append(len(images))
        return [Answer(f"{image.getpixel((0, 0))} seed {one}") for image, one in zip(images, seed, strict=True)]

    monkeypatch.setattr(type(load(EMBEDDED)), "answer", answer)
    return requests


PLAIN = captioning.Steps()


def run(images: Path, out: Path, retry_errors=False, steps=PLAIN, **options: object) -> list[dict]:
    """The rows of a job."""
    options = {"shard_size": 4, "batch_size": 2, "form": "jsonl", **options}
    with pytest.warns(captioning.LeftOut) if (images / "notes.txt").exists() else nullcontext():
        captioning.captioning(Captioning([str(images)], **options), str(out), retry_errors, steps)
    return shard_format.read(out / f"captions.{options['form']}")


def some(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


# -- images --------------------------------------------------------------------------------------------------------
def test_every_kind_of_file_has_a_caption_or_an_error_that_says_why(tmp_path):
    folder = all_kinds(tmp_path / "images")
    rows = {row["id"]: row for row in run(folder, tmp_path / "out", generation={"max_new_tokens": 4})}
    assert sorted(rows) == sorted((*BAD, *GOOD))
    for name, why in BAD.items():
        assert why in rows[name]["error"], rows[name]
        assert str(folder / name) in rows[name]["error"]
        assert rows[name]["caption"] is None
    for name in GOOD:
        assert rows[name]["error"] is None
        assert rows[name]["caption"]
        assert rows[name]["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    report = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text("utf-8").splitlines()]
    assert [one["id"] for one in report] == sorted(BAD)
    upright = two_halves((64, 32)).transpose(Image.Transpose.ROTATE_270)
    lvlm = load(EMBEDDED)
    [direct] = lvlm.caption(upright, prompt=DETAIL_PROMPT, max_new_tokens=4)
    assert rows["turned.png"]["caption"] == direct.text


@pytest.mark.parametrize("name", GOOD)
def test_bytes_are_read_as_the_file_is_and_their_size_is_known_before(tmp_path, name):
    path = all_kinds(tmp_path / "images") / name
    content, image = path.read_bytes(), read_image(path)
    assert read_bytes(content, name).tobytes() == image.tobytes()
    assert read_size(content, name) == (image.height, image.width)


def test_equal_names_have_ids_of_their_own_and_files_without_an_image_name_are_counted(tmp_path):
    found = sources.find([str(all_kinds(tmp_path / "images"))])
    assert [image.id for image in found.items] == sorted((*BAD, *GOOD))
    assert found.ignored == {".txt": 1}
    twice = tmp_path / "list.txt"
    twice.write_text("images/same.png\r\n\nimages/same.png\n", encoding="utf-8")
    assert [image.id for image in sources.find([str(twice)]).items] == ["images/same.png", "images/same.png#2"]


def test_a_name_that_is_no_text_is_read_and_shown(tmp_path, canned):
    folder = some(tmp_path / "images", 1)
    (folder / "0.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    [row] = run(folder, tmp_path / "out")
    assert (row["id"], row["error"]) == (r"caf\xe9.png", None)


def test_limits_are_options(tmp_path, canned):
    folder = some(tmp_path / "images", 2)
    Image.effect_noise((90, 90), 50).save(folder / "large.png")
    rows = run(folder, tmp_path / "pixels", max_pixels=500)
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert "90×90 pixels; at most 500" in rows[2]["error"]
    rows = run(folder, tmp_path / "bytes", max_bytes=1000)
    assert "bytes; possible: 1 to 1,000" in rows[2]["error"]
    big = tmp_path / "big"
    big.mkdir()
    Image.new("L", (7200, 7200)).save(big / "a.png")
    assert run(big, tmp_path / "least", max_pixels=60_000_000)[0]["error"] is None, "more than the usual limit"


def test_a_file_that_must_not_be_read_is_an_error_row(tmp_path, canned, monkeypatch):
    """As root nothing is forbidden: the refusal is made up."""
    opened = Path.open

    def refuse(path, *arguments, **options):
        if path.name == "3.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    rows = run(some(tmp_path / "images"), tmp_path / "out")
    assert [row["id"] for row in rows if row["error"]] == ["3.png"]
    assert rows[3]["error"].endswith("3.png cannot be read: Permission denied")


def test_a_file_that_goes_away_after_the_plan_is_an_error_row(tmp_path, canned, monkeypatch):
    folder = some(tmp_path / "images")
    begin = captioning.begin

    def then_delete(request, out, add):
        begin(request, out)
        (folder / "2.png").unlink()
        return out

    rows = run(folder, tmp_path / "out", steps=captioning.Steps(begin=then_delete))
    assert [row["error"] for row in rows if row["error"]] == [f"{folder / '2.png'} does not exist"]


def test_what_a_killed_worker_left_half_written_is_gone_when_the_job_is_done(tmp_path, canned):
    """Another worker makes the shard, under a partial name of its own."""
    out = tmp_path / "out"

    def killed_first(folder, shard, retry_errors):
        atomic.write(out / "shards" / ".000000.parquet.1.partial", b"PAR1")
        return shards.caption_shard(folder, shard, retry_errors)

    rows = run(some(tmp_path / "images"), out, steps=captioning.Steps(shard=killed_first))
    assert rows
    assert not list(out.rglob("*.partial"))


def test_a_folder_that_cannot_be_listed_is_refused_since_its_images_would_be_lost(tmp_path, monkeypatch):
    folder = some(tmp_path / "images")
    (folder / "closed").mkdir()
    listed = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"closed cannot be listed \(Permission denied\), and its images"):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "job.json").exists()


def test_a_reader_thread_that_fails_costs_one_image(tmp_path, canned, monkeypatch):
    look, decode = read_size, read_bytes

    def fails_at_once(content, name, most):
        if name.endswith("1.png"):
            raise RuntimeError("the codec\ndied")
        return look(content, name, most)

    def fails_later(content, name, most):
        if name.endswith("4.png"):
            raise MemoryError
        return decode(content, name, most)

    monkeypatch.setattr("veridical.pipelines.inputs.images.read_size", fails_at_once)
    monkeypatch.setattr("veridical.pipelines.inputs.images.read_bytes", fails_later)
    rows = run(some(tmp_path / "images"), tmp_path / "out")
    errors = {row["id"]: row["error"] for row in rows if row["error"]}
    assert sorted(errors) == ["1.png", "4.png"]
    assert errors["1.png"].endswith("1.png cannot be read: RuntimeError: the codec")
    assert "MemoryError" in errors["4.png"]


# -- disk ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("when", ["000001", "ledger", "captions", "plan"])
def test_a_full_disk_stops_the_job_and_the_next_start_ends_in_the_same_bytes(tmp_path, canned, monkeypatch, when):
    folder, out = some(tmp_path / "images"), tmp_path / "out"
    run(folder, tmp_path / "whole")
    fsync = os.fsync

    def full(number):
        name = os.readlink(f"/proc/self/fd/{number}")
        if when in Path(name).name and (when != "ledger" or Path(name).read_bytes().count(b"\n") == 2):
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(atomic.DiskFull, match=r"no room to write .* Nothing that was finished is lost"):
            run(folder, out)
    assert not list(out.rglob("*.partial"))
    assert not (out / "summary.json").exists()
    run(folder, out)
    for name in ("captions.jsonl", "summary.json", "shards/000000.jsonl", "shards/000001.jsonl", "plan.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_file_size_limit_of_the_system_is_told_like_a_full_disk(tmp_path, canned, monkeypatch):
    """As under `ulimit -f`: the refusal is the kernel's own."""
    monkeypatch.setattr(shard_format, "encode", lambda rows, form: b"x" * 40_000_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000_000, hard))
    try:
        with pytest.raises(atomic.DiskFull, match=r"no room to write 000000\.jsonl"):
            run(some(tmp_path / "images"), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "out" / "shards").iterdir())


# -- memory and model ----------------------------------------------------------------------------------------------
def model(monkeypatch, fails):
    """A model that answers with the red of a corner, unless `fails` raises for a batch of them."""
    requests: list[list[int]] = []

    def answer(self, images, *arguments, **options):
        reds = [image.getpixel((0, 0))[0] for image in images]
        requests.append(reds)
        fails(reds)
        return [Answer(str(red)) for red in reds]

    monkeypatch.setattr(type(load(EMBEDDED)), "answer", answer)
    return requests


def test_out_of_memory_halves_the_batch_down_to_one_and_then_is_an_error_row(tmp_path, monkeypatch):
    def small(reds):
        if len(reds) > 2 or 3 in reds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore")

    requests = model(monkeypatch, small)
    rows = run(some(tmp_path / "images", 5), tmp_path / "out", batch_size=5, shard_size=5)
    assert requests == [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1], [2], [3, 4], [3], [4]]
    assert [row["caption"] for row in rows] == ["0", "1", "2", None, "4"]
    assert rows[3]["error"].startswith("out of memory with this image alone (OutOfMemoryError: CUDA out of memory. Tr")
    assert json.loads((tmp_path / "out" / "ledger.jsonl").read_text("utf-8"))["halved"] == 3


def test_images_that_all_fail_in_one_way_are_error_rows_if_the_model_answers_about_another(tmp_path, monkeypatch):
    """Two shards of them, asked twice: nothing but an image that is good tells them from a model that is broken."""

    def picky(reds):
        if min(reds) < 6:
            raise ValueError("absolute aspect ratio must be smaller than 200")

    requests = model(monkeypatch, picky)
    folder = some(tmp_path / "images")
    rows = run(folder, tmp_path / "out")
    assert [row["error"].endswith("smaller than 200") for row in rows] == [True] * 6
    assert requests.count([128]) == 2
    assert run(folder, tmp_path / "out", retry_errors=True) == rows


def test_an_image_that_the_model_cannot_take_costs_only_itself(tmp_path, monkeypatch):
    def picky(reds):
        if 2 in reds:
            raise ValueError("absolute aspect ratio must be smaller than 200")

    model(monkeypatch, picky)
    rows = run(some(tmp_path / "images"), tmp_path / "out")
    assert [row["caption"] for row in rows] == ["0", "1", None, "3", "4", "5"]
    assert rows[2]["error"].endswith("ValueError: absolute aspect ratio must be smaller than 200")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), "the accelerator failed .* start the same command"),
        (RuntimeError("mat1 and mat2"), "the model failed on each of 4 images, and on a grey image too: RuntimeError"),
    ],
)
def test_a_model_that_is_broken_stops_the_job_instead_of_filling_it_with_errors(tmp_path, monkeypatch, error, message):
    def broken(reds):
        raise error

    model(monkeypatch, broken)
    with pytest.raises(batch_retry.ModelFailed, match=message):
        run(some(tmp_path / "images"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("shards/*"))


def test_logits_that_are_no_numbers_are_an_error_row_and_no_caption(tmp_path, monkeypatch):
    """One image of the batch: a hook on the vision tower turns what is fully red into NaN."""
    folder = some(tmp_path / "images", 4)
    Image.new("RGB", (20, 20), RED).save(folder / "1.png")
    lvlm = load(EMBEDDED)

    def poison(module, arguments, options):
        pixels = options["pixel_values"] if "pixel_values" in options else arguments[0]
        red = (pixels[:, 0] > pixels[:, 1] + 1).flatten(1).all(1)
        rest = {name: value for name, value in options.items() if name != "pixel_values"}
        return (torch.where(red[:, None, None, None], torch.nan, pixels), *arguments[1:]), rest

    tower = next(module for name, module in lvlm.model.named_modules() if name.endswith("vision_tower"))
    hook = tower.register_forward_pre_hook(poison, with_kwargs=True)
    try:
        rows = run(folder, tmp_path / "out", batch_size=4, generation={"max_new_tokens": 3})
        sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 3}
        drawn = run(folder, tmp_path / "drawn", batch_size=4, decoders=["vcd"], generation=sampled)
    finally:
        hook.remove()
    for found in (rows, drawn):
        assert [row["error"] is None for row in found] == [True, False, True, True]
        assert found[1]["error"].startswith("the logits became NaN or infinite")
        assert found[1]["caption"] is None
        assert all(found[place]["caption"] for place in (0, 2, 3))


# -- what comes from outside ---------------------------------------------------------------------------------------
def test_ids_cannot_lead_out_of_the_folder(tmp_path, canned):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = some(tmp_path / "images", 2)
    names = ["../../x", "/etc/x"]
    table = pa.table({"id": names, "path": ["images/0.png", "images/1.png"]})
    pq.write_table(table, tmp_path / "table.parquet")
    before = set(tmp_path.rglob("*"))
    captioning.captioning(Captioning([str(tmp_path / "table.parquet")]), str(tmp_path / "a" / "out"))
    fresh = set(tmp_path.rglob("*")) - before
    assert all(path == tmp_path / "a" or (tmp_path / "a" / "out") in (path, *path.parents) for path in fresh)
    rows = shard_format.read(tmp_path / "a" / "out" / "captions.parquet")
    assert [(row["id"], row["path"]) for row in rows] == [
        ("../../x", str(folder / "0.png")), ("/etc/x", str(folder / "1.png"))
    ]  # fmt: skip


def test_addresses_in_a_list_are_error_rows_with_both_slashes_and_nothing_is_fetched(tmp_path, canned, monkeypatch):
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: pytest.fail("looked up"))
    folder, names = some(tmp_path / "images", 1), tmp_path / "list.txt"
    names.write_text(f"https://x.example/a.png\n{folder}/0.png\n", encoding="utf-8")
    captioning.captioning(Captioning([str(names)]), str(tmp_path / "out"))
    good, bad = shard_format.read(tmp_path / "out" / "captions.parquet")
    assert good["error"] is None
    assert (bad["id"], bad["path"]) == ("https://x.example/a.png", "https://x.example/a.png")
    assert bad["error"].startswith("https://x.example/a.png is an address, and nothing is fetched from the network")
    assert "img2dataset" in bad["error"]
