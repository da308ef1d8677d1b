"""What a job is told to caption: lists and tables as other programs write them, and names of every kind."""

import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from veridical.flows.captioning import image_loader, run, shard_format
from veridical.flows.captioning import images as sources
from veridical.flows.captioning.request import EMBEDDED, Captioning
from veridical.pipelines.model.spec import load
from veridical.pipelines.results import Answer


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_paths_of_a_table_are_read_as_pandas_and_polars_store_them(tmp_path, kind):
    plain = pa.array(["b.png", "a.png"])
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    pq.write_table(pa.table({"path": column}), tmp_path / "table.parquet")
    found = sources.find([str(tmp_path / "table.parquet")]).items
    assert found == [(name, str(tmp_path / name)) for name in ("a.png", "b.png")]


def test_a_table_without_paths_says_what_it_has(tmp_path):
    pq.write_table(pa.table({"path": [1], "file": ["a.png"]}), tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=r'no column "path" of strings; found path \(int64\), file \(string\)'):
        sources.find([str(tmp_path / "table.parquet")])


def test_a_list_in_utf_16_is_refused_before_every_line_becomes_an_error(tmp_path):
    (tmp_path / "list.txt").write_bytes("a.png\r\n".encode("utf-16"))
    with pytest.raises(ValueError, match="has zero bytes, as UTF-16 has; save it as UTF-8"):
        sources.find([str(tmp_path / "list.txt")])


def test_lines_of_a_list_are_names_whatever_is_in_them(tmp_path):
    """CRLF, blank lines, a mark at the beginning, other alphabets, `..`, blanks at the end, and no comments."""
    lines = "a.png\r\n\r\n  \nx/../b – 图.png\n# c.png\n d.png \n/e.png\na.png"
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    found = dict(sources.find([str(tmp_path / "list.txt")]).items)
    assert found == {
        "a.png": f"{tmp_path}/a.png", "a.png#2": f"{tmp_path}/a.png", "x/../b – 图.png": f"{tmp_path}/b – 图.png",
        "# c.png": f"{tmp_path}/# c.png", " d.png ": f"{tmp_path}/ d.png ", "/e.png": "/e.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [(["phots"], "^no file or folder phots$"), (["a1.png", "a2.png"], "^no file or folder a1.png, a2.png$"),
     (["http://x.example/a.png"], r"http://x\.example/a\.png; nothing is fetched from the network: download it")],
)  # fmt: skip
def test_a_misspelt_name_makes_no_job_that_stands_in_the_way_of_the_right_one(tmp_path, monkeypatch, names, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        run.captioning(Captioning(names), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "job.json").exists()


def test_one_of_several_files_that_is_missing_costs_only_itself(image):
    missing = str(image.with_name("b.png"))
    assert [one.path for one in sources.find([str(image), missing]).items] == [str(image), missing]


@pytest.mark.parametrize("place", ["images", "out"])
def test_a_folder_whose_name_is_no_text_is_refused_with_a_way_out(veridical, image, tmp_path, place):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    arguments = [odd, "--out", tmp_path / "out"] if place == "images" else [image, "--out", odd]
    shown = veridical("caption", *arguments)
    assert shown.exit_code == 2
    assert "caf\\xe9 has bytes that are no UTF-8, which job.json cannot hold" in shown.stderr
    assert not os.path.exists(odd)


def test_an_address_that_is_no_text_is_an_error_row_that_can_be_written():
    item = sources.ImageItem("a", os.fsdecode(b"http://127.0.0.1/\xff"))
    file = image_loader.read(item, 0, image_loader.Limits(9, 9))
    assert file.error is not None
    assert file.error.startswith("http://127.0.0.1/\\xff is an address")
    file.error.encode()


def test_a_hundred_thousand_equal_lines_of_a_list_are_named_in_seconds(tmp_path):
    (tmp_path / "list.txt").write_text("a.png\n" * 100_000)
    began = time.monotonic()
    items = sources.find([str(tmp_path / "list.txt")]).items
    assert time.monotonic() - began < 10
    assert (items[0].id, items[-1].id, len({item.id for item in items})) == ("a.png", "a.png#100000", 100_000)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_risk_that_is_no_number_is_left_open_in_both_formats(image, tmp_path, monkeypatch, form):
    """JSON has neither NaN nor infinity: one such risk would stop a job in the middle of the night."""
    answer = Answer("a", risk={"mine": [float("inf"), float("nan"), 0.5]})
    lvlm = load(EMBEDDED)
    monkeypatch.setattr(type(lvlm), "answer", lambda self, images, *arguments, **options: [answer])
    run.captioning(Captioning([str(image)], form=form), str(tmp_path / "out"))
    [row] = shard_format.read(tmp_path / "out" / f"captions.{form}")
    assert row["risk"] == {"mine": [None, None, 0.5]}


def test_linked_folders_are_left_out_and_counted(tmp_path, image):
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    image.rename(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    found = sources.find([str(tmp_path / "photos")])
    assert [item.id for item in found.items] == ["a.png"]
    assert sources.note(found.ignored) == (
        "1 files are no images by their name and left out: 1 linked folder; a linked folder is captioned if it is "
        "named itself"
    )


@pytest.fixture
def tree(tmp_path):
    """A folder of images in folders."""
    for name in ("a.jpg", "b.png", "a/c.png", "a/d/e.png", "f/g.jpg", "f/h_thumb.jpg"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [(["*.jpg", "a/**"], ["*_thumb*"], ["a.jpg", "a/c.png", "a/d/e.png", "f/g.jpg"]), (["a/*"], [], ["a/c.png"]),
     ([], ["**/d/**", "f/*"], ["a.jpg", "a/c.png", "b.png"]), (["**/*.png"], [], ["a/c.png", "a/d/e.png", "b.png"]),
     (["*/*/[a-e].png"], [], ["a/d/e.png"])],
)  # fmt: skip
def test_globs_choose_among_the_images_of_a_folder_by_their_paths(tree, include, exclude, taken):
    found = sources.find([str(tree)], Captioning([str(tree)], include=include, exclude=exclude).globs)
    assert [item.id for item in found.items] == taken
    assert found.unchosen == 6 - len(taken)


def test_a_job_with_globs_counts_what_they_leave_out_once_and_goes_on_under_the_same_alone(
    veridical, tree, tmp_path, monkeypatch
):
    monkeypatch.setattr(type(load(EMBEDDED)), "answer", lambda self, images, *a, **o: [Answer("a") for _ in images])
    command = ["caption", tree, "--out", tmp_path / "out", "--format", "jsonl", "--no-prefect"]
    globs = ["--exclude", "f/*", "--include", "*.jpg", "--include", "a/**"]
    shown = veridical(*command, *globs)
    assert shown.exit_code == 0, shown.stderr
    left_out = "3 images are left out by --include '*.jpg' --include 'a/**' --exclude 'f/*'"
    assert shown.stderr.count(left_out) == 1
    rows = shard_format.read(tmp_path / "out" / "captions.jsonl")
    assert [row["id"] for row in rows] == ["a.jpg", "a/c.png", "a/d/e.png"]
    again = veridical(*command, "--include", "a/**", "--include", "*.jpg", "--exclude", "f/*")
    assert again.exit_code == 0, again.stderr
    assert "left out" not in again.stderr
    assert "have come into" not in again.stderr
    other = veridical(*command, "--include", "*.jpg")
    assert other.exit_code == 2
    assert 'include was ["*.jpg", "a/**"], now ["*.jpg"]' in other.stderr
    assert "was begun with other settings: include was" in other.stderr


def test_a_request_without_globs_is_recorded_as_before_there_were_any():
    plain = Captioning(["photos"])
    assert not {"include", "exclude"} & {*plain.record(), *plain.decisive()}
    chosen = Captioning(["photos"], include="*.jpg", exclude=("b", "a", "b"))
    assert Captioning.from_record(chosen.record()) == chosen
    assert (chosen.include, chosen.exclude) == (("*.jpg",), ("a", "b"))


def test_globs_that_leave_nothing_or_choose_from_no_folder_are_refused(veridical, tree, image):
    with pytest.raises(ValueError, match=r"no images in .*tree: 6 are left out by --include '\*\.gif'; give"):
        sources.find([str(tree)], Captioning([str(tree)], include=["*.gif"]).globs)
    with pytest.raises(ValueError, match=r"--exclude choose among the images of a folder, and .*a\.png is no folder"):
        sources.find([str(image)], Captioning([str(image)], exclude=["*.gif"]).globs)
    with pytest.raises(ValueError, match="an empty glob fits no image"):
        Captioning([str(tree)], include=[""]).check()
    shown = veridical("caption", image, "--include", "*.png")
    assert shown.exit_code == 2
    assert "a choice by globs is for many images: add --out FOLDER" in shown.stderr
