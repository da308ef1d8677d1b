"""Files whole or not at all, a log that survives half a line, one process at a time in a folder."""

import errno
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from veridical.flows.files import atomic
from veridical.flows.files.lock import InUse, locked


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "a" / "file"
    told = atomic.write(path, b"old")

    def fails():
        with atomic.replacing(path) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert path.read_bytes() == b"old"
    assert atomic.digest(path) == told
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda n: calls.append(os.readlink(f"/proc/self/fd/{n}")) or fsync(n))
    monkeypatch.setattr(os, "replace", lambda *a: calls.append("rename") or replace(*a))
    atomic.write(tmp_path / "x", b"1")
    assert [str(call).rpartition("/")[2] for call in calls] == [f".x.{os.getpid()}.partial", "rename", tmp_path.name]


@pytest.mark.parametrize("torn", [b'{"shard": 2', b"x" * 200_000])
def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path, torn):
    path = tmp_path / "ledger"
    atomic.append(path, {"shard": 1})
    with path.open("ab") as file:
        file.write(torn)
    assert atomic.lines(path) == [{"shard": 1}]
    atomic.append(path, {"shard": 3})
    assert atomic.lines(path) == [{"shard": 1}, {"shard": 3}]
    assert path.read_bytes() == b'{"shard": 1}\n{"shard": 3}\n'


def test_a_line_in_the_middle_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "ledger"
    path.write_text('{"a": 1}\n{"a"\n{"a": 2}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 is not JSON; delete it"):
        atomic.lines(path)


def test_what_killed_processes_left_is_swept(tmp_path):
    for name in (".a.parquet.12.partial", "b.parquet", ".hidden"):
        (tmp_path / name).touch()
    atomic.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "b.parquet"]


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    said = f"in use by process {os.getpid()} on {socket.gethostname()}"
    with locked(tmp_path), pytest.raises(InUse, match=said), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text("utf-8"))["pid"] == os.getpid()
    assert (tmp_path / "lock").read_text("utf-8") == ""


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom veridical.flows.files.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    left = json.loads((tmp_path / "lock").read_text("utf-8"))
    assert left["pid"] != os.getpid()
    with locked(tmp_path):
        pass


def test_another_machine_is_believed_until_it_has_been_silent(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "then"}), encoding="utf-8")
    with pytest.raises(InUse, match=r"process 1 on elsewhere since then .* try again in .* or"), locked(tmp_path):
        pass
    os.utime(path, (time.time() - 700, time.time() - 700))
    with locked(tmp_path):
        pass


def test_a_lock_that_was_half_written_is_nobodys(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 1, "ho', encoding="utf-8")
    with locked(tmp_path):
        pass


def test_without_locks_on_the_file_system_a_fresh_sign_of_life_keeps_others_out(tmp_path, monkeypatch):
    import fcntl

    def unable(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", unable)
    with locked(tmp_path), pytest.raises(InUse, match=r"was in use by process .* try again in"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_in_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"nothing can be written in .*file/x \(.+\); choose another --out"), locked(
        tmp_path / "file" / "x"
    ):
        pass
