"""Names in the files of others stay inside their folder: no local image gets into a report by them."""

import json
import os

import pytest

from veridical.datasets import amber, coco, question_rows, seen
from veridical.datasets.closed import base
from veridical.datasets.image_paths import LinkedFolder, inside
from veridical.datasets.question_rows import image_of

from ...end_to_end.evaluations import evaluate

OUTSIDE = [
    "../secret.png", "a/../../secret.png", "{root}/secret.png", "link.png", "linked/secret.png", "..", "../folder2/a",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder beside a secret image, with links to it, and a neighbour whose name begins alike."""
    for name in ("folder/a", "folder2", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("secret.png", "folder/good.png", "folder/a/good.png", "elsewhere/secret.png", "folder2/a"):
        (tmp_path / name).write_bytes(b"image")
    (tmp_path / "folder" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "folder" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder" / "own.png").symlink_to("a/good.png")
    return tmp_path / "folder"


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_its_folder_is_refused(folder, name):
    name = name.format(root=folder.parent)
    with pytest.raises(ValueError, match=r"leads out of .*folder to .*own folder: put a copy of the image there"):
        inside(folder, name)
    with pytest.raises(ValueError, match="leads out of"):
        image_of(folder, name)


@pytest.mark.parametrize("name", ["good.png", "a/good.png", "a/../good.png", "./good.png", "own.png", "none.png"])
def test_a_name_in_the_folder_stands_as_it_is(folder, name):
    assert inside(folder, name) == folder / name
    assert image_of(folder, name) == str(folder / name)


@pytest.mark.parametrize("name", [5, None, "", "a\0b", ["a"]])
def test_what_is_no_name_is_refused(folder, name):
    with pytest.raises(ValueError, match=r"an image is named .*; needed: the name of a file in"):
        inside(folder, name)


def test_a_folder_may_itself_be_a_link_and_images_may_lie_in_one_that_is_named(folder, tmp_path):
    (tmp_path / "alias").symlink_to(folder)
    assert inside(tmp_path / "alias", "good.png") == tmp_path / "alias" / "good.png"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").touch()
    (folder / "images").symlink_to(tmp_path / "images")
    with pytest.warns(LinkedFolder, match=r"the images of .* are not in it: images is a link to"):
        assert image_of(folder, "b.png") == str(folder / "images" / "b.png")


def test_the_files_of_a_snapshot_of_the_hub_are_links_and_are_taken(tmp_path):
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "datasets--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").touch()
    (tmp_path / "secret.png").touch()
    (snapshot / "a.png").symlink_to("../../blobs/abc")
    (snapshot / "b.png").symlink_to(tmp_path / "secret.png")
    assert inside(snapshot, "a.png") == snapshot / "a.png"
    with pytest.raises(ValueError, match="leads out of"):
        inside(snapshot, "b.png")


@pytest.mark.parametrize("name", ["../secret.png", "link.png"])
def test_coco_folders_and_question_files_of_each_kind_are_refused(tmp_path, name):
    (tmp_path / "secret.png").touch()
    folder = tmp_path / "coco"
    (folder / "val").mkdir(parents=True)
    (folder / "val" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    content = {
        "images": [{"id": 1, "file_name": name}], "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
    }  # fmt: skip
    (folder / "instances_val.json").write_text(json.dumps(content))
    row = {"image": name, "text": "How many?", "about": "dogs", "number": 1}
    queries = {1: {"image": name, "query": "Describe."}}
    refused = [
        lambda: coco.coco_examples(folder),
        lambda: list(seen.from_coco(folder)),
        lambda: question_rows.number([row], folder, 1),
        lambda: amber.from_folder(folder, {1: {"type": "generative", "truth": []}}, queries, 1, {}),
        lambda: base.examples([base.ClosedQuestion("1", name, "?", "yes")], [folder], 1, "MME", ""),
    ]
    for read in refused:
        with pytest.raises(ValueError, match="leads out of"):
            read()


def test_an_evaluation_of_such_a_file_shows_nothing_of_it(tmp_path):
    (tmp_path / "secret.png").touch()
    (tmp_path / "q").mkdir()
    row = {"image": "../secret.png", "text": "How many?", "about": "dogs", "number": 1}
    (tmp_path / "q" / "questions.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"the image '\.\./secret\.png' leads out of"):
        evaluate(tmp_path / "out", benchmarks=["number"], data=os.fspath(tmp_path / "q" / "questions.jsonl"))
    assert not (tmp_path / "out" / "report.html").exists()
