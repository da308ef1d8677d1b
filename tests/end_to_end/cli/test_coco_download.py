"""COCO from a server of this test's own: the right files, only those, and connections that do not hold."""

import hashlib
import json
import threading
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from veridical.cli.commands import data
from veridical.datasets.coco import choose, coco_examples, coco_pope, find_coco, load_json, write_coco
from veridical.datasets.pope import STRATEGIES
from veridical.flows.files import atomic, coco
from veridical.flows.files.coco import LEDGER, fetch
from veridical.flows.files.downloads import DownloadFailed, Expected, download

COUNT, LIMIT = 30, 6
ARCHIVE = "/annotations/annotations_trainval2014.zip"


class Server(ThreadingHTTPServer):
    """Serves bytes by path over TLS, and counts what it sends.

    cut: path -> bytes after which the connection ends, once each. status: path -> error codes to answer with first.
    named: path -> ETag. moved: path -> address to redirect to.
    """

    daemon_threads = True

    def __init__(self, files, context):
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.files, self.cut, self.status, self.named, self.moved = dict(files), {}, {}, {}, {}
        self.requests, self.sent = [], Counter()
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, path = self.server, self.path
        server.requests.append(path)
        if server.status.get(path):
            self.send_error(server.status[path].pop(0))
            return
        if path in server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved[path])
            self.end_headers()
            return
        content = server.files.get(path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", server.named.get(path, f'"{hashlib.md5(content).hexdigest()}"'))
        self.end_headers()
        body = content[: server.cut.pop(path)] if path in server.cut else content
        self.wfile.write(body)
        server.sent[path] += len(body)
        self.close_connection = True

    def log_message(self, *arguments):
        """Quiet."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """{path: content} of a server, and the folder that it was made of."""
    folder = write_coco("test", COUNT, tmp_path_factory.mktemp("world"))
    files = {f"/val2014/{path.name}": path.read_bytes() for path in (folder / "test").iterdir()}
    archive = folder / "archive.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for kind in ("instances", "captions", "person_keypoints"):
            source = folder / f"{'captions' if kind == 'person_keypoints' else kind}_test.json"
            out.write(source, f"annotations/{kind}_val2014.json")
    files[ARCHIVE] = archive.read_bytes()
    return files, folder


@pytest.fixture
def server(world, monkeypatch, tls):
    files, _ = world
    size = len(files[ARCHIVE])
    expected = Expected(hashlib.sha256(files[ARCHIVE]).hexdigest(), limit=size, size=size)
    monkeypatch.setattr(coco, "ARCHIVES", {"2014": expected})
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.file))
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    running = Server(files, tls.context)
    yield running
    running.shutdown()
    running.server_close()


def image_names(folder):
    return sorted(path.name for path in (folder / "val2014").iterdir())


# -- the folder ----------------------------------------------------------------------------------------------------
def test_the_folder_holds_what_evaluate_will_open_and_nothing_else(server, tmp_path):
    done = fetch(tmp_path, limit=LIMIT, host=server.url)
    opened = {e.path for e in coco_examples(tmp_path, LIMIT)}
    opened |= {e.path for s in STRATEGIES for e in coco_pope(tmp_path, LIMIT, s)}
    assert LIMIT < len(opened) < COUNT, "two draws, and not all"
    assert set(image_names(tmp_path)) == {path.name for path in opened}
    assert (done.images, done.fetched, done.found, done.failed) == (len(opened), len(opened), 0, {})
    assert sorted(path.name for path in (tmp_path / "annotations").iterdir()) == [
        "captions_val2014.json", "instances_val2014.json",
    ]  # fmt: skip
    assert find_coco(tmp_path).split == "val2014"


def test_the_files_are_the_servers_and_the_ledger_has_their_sha256(server, tmp_path, world):
    fetch(tmp_path, limit=LIMIT, host=server.url)
    known = {line["file"]: line for line in atomic.lines(tmp_path / LEDGER).records}
    assert len(known) == len(image_names(tmp_path)) + 2
    for name, line in known.items():
        content = (tmp_path / name).read_bytes()
        assert line == {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert all((tmp_path / "val2014" / n).read_bytes() == world[0][f"/val2014/{n}"] for n in image_names(tmp_path))


def test_lists_choose_the_images(server, tmp_path):
    fetch(tmp_path, images="first-4-sorted", limit=None, host=server.url)
    assert image_names(tmp_path) == [f"test_{index:06d}.png" for index in range(4)]
    fetch(tmp_path, images=["test_000020.png", 30_000_011], limit=None, host=server.url)
    assert image_names(tmp_path)[4:] == ["test_000011.png", "test_000020.png"]
    with pytest.raises(ValueError, match=r"1 of 1 images of the list are not in the annotations, such as 7; those"):
        fetch(tmp_path, images=[7], host=server.url)


def test_a_second_time_nothing_is_fetched(server, tmp_path):
    fetch(tmp_path, limit=LIMIT, host=server.url)
    requests = len(server.requests)
    again = fetch(tmp_path, limit=LIMIT, host=server.url)
    assert len(server.requests) == requests
    assert (again.fetched, again.found) == (0, again.images)


def test_damage_is_found_and_mended(server, tmp_path):
    fetch(tmp_path, images="first-4-sorted", host=server.url)
    shorter, other, lost, _ = [tmp_path / "val2014" / name for name in image_names(tmp_path)]
    whole = [path.read_bytes() for path in (shorter, other, lost)]
    shorter.write_bytes(whole[0][:-1])
    other.write_bytes(whole[1][:-1] + b"?")
    lost.unlink()
    assert fetch(tmp_path, images="first-4-sorted", host=server.url).fetched == 2, "sizes alone are compared"
    assert fetch(tmp_path, images="first-4-sorted", host=server.url, verify=True).fetched == 1
    assert [path.read_bytes() for path in (shorter, other, lost)] == whole


def test_files_of_ones_own_are_taken_over_if_they_are_the_images(server, tmp_path, world):
    fetch(tmp_path, images="first-1-sorted", host=server.url)
    for name, content in (("test_000001.png", None), ("test_000002.png", b"no image")):
        (tmp_path / "val2014" / name).write_bytes(content or world[0][f"/val2014/{name}"])
    done = fetch(tmp_path, images="first-3-sorted", host=server.url)
    assert (done.found, done.fetched) == (2, 1)


# -- connections that do not hold ----------------------------------------------------------------------------------
def test_a_file_whose_connection_is_cut_is_fetched_anew(server, tmp_path, world):
    size = len(world[0][ARCHIVE])
    server.cut[ARCHIVE] = size // 3
    fetch(tmp_path, images="first-1-sorted", host=server.url)
    assert server.requests.count(ARCHIVE) == 2
    assert server.sent[ARCHIVE] == size + size // 3


def test_the_bar_counts_each_byte_once_though_a_try_failed(server, tmp_path, world):
    server.cut[ARCHIVE], counts = 1000, []
    download(server.url + ARCHIVE, tmp_path / "file", Expected(limit=10**9), counts.append)
    assert sum(counts) == len(world[0][ARCHIVE])


def test_what_a_killed_download_left_is_deleted_by_the_next_and_the_other_files_are_kept(server, tmp_path):
    fetch(tmp_path, images="first-2-sorted", host=server.url)
    left = tmp_path / "val2014" / ".download-abc"
    left.mkdir()
    (left / "tmp123").write_bytes(b"half")
    assert fetch(tmp_path, images="first-3-sorted", host=server.url).fetched == 1
    assert not left.exists()
    assert image_names(tmp_path) == [f"test_{index:06d}.png" for index in range(3)]


def test_a_failed_download_leaves_the_file_that_was_there(server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(DownloadFailed):
        download(server.url + "/none", tmp_path / "file")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    path = "/val2014/test_000000.png"
    server.status[path] = [503, 500]
    download(server.url + path, tmp_path / "file")
    assert len(server.requests) == 3
    with pytest.raises(DownloadFailed, match="the server answered 404"):
        download(server.url + "/none", tmp_path / "none")
    assert len(server.requests) == 4
    server.status[path] = [503] * 9
    with pytest.raises(DownloadFailed, match=r"could not be fetched .*503.*; try again later"):
        download(server.url + path, tmp_path / "again", retries=1)
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(size=5), "is not the published file: it has .* bytes, not 5"),
        (Expected(sha256="0" * 64), "is not the published file: .* does not match the known hash"),
        (Expected(limit=50), "at most 50 are taken"),
    ],
)
def test_another_file_than_expected_never_takes_its_place(server, tmp_path, expected, message):
    with pytest.raises(DownloadFailed, match=message):
        download(server.url + "/val2014/test_000000.png", tmp_path / "file", expected)
    assert not list(tmp_path.iterdir())


def test_content_that_is_not_what_the_server_says_is_refused(server, tmp_path):
    path = "/val2014/test_000000.png"
    server.named[path] = f'"{"0" * 32}"'
    with pytest.raises(DownloadFailed, match=r"its MD5 is .*, and the server says 000000000000"):
        download(server.url + path, tmp_path / "file")


def test_no_file_and_no_other_scheme_is_read(tmp_path):
    for url in ((tmp_path / "x").as_uri(), "ftp://127.0.0.1/x", "http://127.0.0.1/x"):
        with pytest.raises(DownloadFailed, match="is no https address; only those are fetched"):
            download(url, tmp_path / "y")


def test_a_redirect_stays_on_https(server, tmp_path):
    server.moved = {"/here": f"{server.url}/val2014/test_000000.png", "/away": "http://127.0.0.1/x"}
    download(server.url + "/here", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.files["/val2014/test_000000.png"]
    with pytest.raises(DownloadFailed, match=r"http://127\.0\.0\.1/x, to which .*/away redirects, is no https address"):
        download(server.url + "/away", tmp_path / "other")


def test_a_server_that_nobody_vouches_for_is_not_trusted(server, tmp_path, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(DownloadFailed, match="CERTIFICATE_VERIFY_FAILED"):
        download(server.url + "/val2014/test_000000.png", tmp_path / "file")


def test_missing_images_are_counted_and_the_others_stay(server, tmp_path):
    path = "/val2014/test_000001.png"
    kept = server.files.pop(path)
    with pytest.raises(DownloadFailed, match=r"1 of 4 images are missing; 3 are there, and the same command goes on"):
        fetch(tmp_path, images="first-4-sorted", host=server.url)
    assert len(image_names(tmp_path)) == 3
    server.files[path] = kept
    assert fetch(tmp_path, images="first-4-sorted", host=server.url).fetched == 1


def test_an_image_of_another_size_is_refused(server, tmp_path, world):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    server.files["/val2014/test_000000.png"] = file.getvalue()
    with pytest.raises(DownloadFailed, match="it has 8×8 pixels, not 192×192"):
        fetch(tmp_path, images="first-1-sorted", host=server.url)
    assert image_names(tmp_path) == []


def test_a_name_that_leaves_the_folder_is_refused(server, tmp_path):
    fetch(tmp_path, images="first-1-sorted", host=server.url)
    path = tmp_path / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = "../../evil.png"
    text = json.dumps(content)
    path.write_text(text)
    (tmp_path / LEDGER).unlink()
    load_json.cache_clear()
    server.files["/val2014/../../evil.png"] = server.files["/val2014/test_000001.png"]
    with pytest.raises(DownloadFailed, match=r"'../../evil.png' is no plain file name"):
        fetch(tmp_path, images="first-2-sorted", host=server.url)
    load_json.cache_clear()
    assert not list(tmp_path.parent.glob("evil*"))


def test_a_damaged_archive_is_refused(server, tmp_path):
    server.files[ARCHIVE] = server.files[ARCHIVE][:-9] + b"x" * 9
    with pytest.raises(DownloadFailed, match="does not match the known hash"):
        fetch(tmp_path, host=server.url)
    assert list((tmp_path / "annotations").iterdir()) == []


# -- the command ---------------------------------------------------------------------------------------------------
def test_the_command_says_what_it_did_and_evaluate_goes_on_from_it(server, tmp_path, veridical):
    ids = tmp_path / "ids.txt"
    ids.write_text("test_000002.png\n30000005\n30000000\n")
    out = tmp_path / "coco"
    shown = veridical("data", "coco", "--out", out, "--images", ids, "--from", server.url)
    assert shown.exit_code == 0, shown.output
    assert f"3 images of val2014 in {out}: 3 fetched, 0 were there" in shown.stdout
    run = ("evaluate", "--coco", out, "--images", ids, "--benchmark", "chair", "--no-prefect")
    assert veridical(*run, "--out", tmp_path / "run").exit_code == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["benchmarks"]["chair"]["image_ids"] == [30_000_002, 30_000_005, 30_000_000]
    assert manifest["request"]["source"]["limit"] == 3
    assert manifest["files"]["ids.txt"] == hashlib.sha256(ids.read_bytes()).hexdigest()


def test_the_command_refuses_what_cannot_be(server, tmp_path, veridical):
    for more, message in (
        (("--split", "val2013"), "no split 'val2013' of COCO to download; possible: train2014, val2014"),
        (("--images", tmp_path / "none.txt"), "no such file, nor a list like"),
    ):
        shown = veridical("data", "coco", "--out", tmp_path / "coco", "--from", server.url, *more)
        assert shown.exit_code == 2
        assert message in shown.stderr
    assert server.requests == []


def test_the_commands_server_is_cocos():
    import inspect

    assert inspect.signature(data.coco).parameters["host"].default == coco.HOST
    assert all(len(expected.sha256) == 64 for expected in coco.ARCHIVES.values())


# -- lists of images -----------------------------------------------------------------------------------------------
def test_lists_of_a_coco_folder(world):
    _, folder = world
    content = load_json(find_coco(folder).instances)
    ids = [image["id"] for image in content["images"]]
    assert choose(content, None) == ids
    assert choose(content, None, images="first-5-sorted") == sorted(ids)[:5]
    assert choose(content, 2, images="first-5-sorted") == sorted(ids)[:2]
    assert choose(content, 2, images=[ids[7], "test_000003.png", ids[7], ids[0]]) == [ids[7], ids[3]]
    with pytest.raises(ValueError, match="first-99-sorted: the annotations have only 30 images"):
        choose(content, None, images="first-99-sorted")
    with pytest.raises(ValueError, match="no image list 'last-5'"):
        choose(content, None, images="last-5")
    requests = coco_pope(folder, None, "popular", images="first-12-sorted")
    assert {e.image_id for e in requests} <= set(sorted(ids)[:12])
    assert [e.image_id for e in coco_examples(folder, None, images=["test_000003.png"])] == [ids[3]]
