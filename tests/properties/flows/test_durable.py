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
    recorded = atomic.write(path, b"old")

    def fails():
        with atomic.replacing(path) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert path.read_bytes() == b"old"
    assert atomic.digest(path) == recorded
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
    assert atomic.lines(path) == ([{"shard": 1}], [])
    atomic.append(path, {"shard": 3})
    assert atomic.lines(path) == ([{"shard": 1}, {"shard": 3}], [])
    assert path.read_bytes().count(b"\n") == 2


def test_a_line_in_the_middle_that_is_damaged_counts_as_absent_and_is_numbered(tmp_path):
    path = tmp_path / "ledger"
    path.write_text('{"a": 1}\n{"a"\n[2]\n{"a": 2}\n', encoding="utf-8")
    assert atomic.lines(path) == ([{"a": 1}, {"a": 2}], [2, 3])


def test_no_flipped_bit_of_a_log_passes_as_another_record(tmp_path):
    """Every bit of the file once: the records that are read are those that were written, or fewer."""
    path, records = tmp_path / "ledger", [{"shard": number, "file": f"{number}.parquet"} for number in range(3)]
    for record in records:
        atomic.append(path, record)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            found = atomic.lines(path).records
            strange = [one for one in found if one not in records]
            assert all(len(one) > 2 for one in strange), (place, bit, strange)  # a flip in the word "check" itself
            assert len(found) >= 1


def test_what_killed_processes_left_is_swept(tmp_path):
    for name in (".a.parquet.12.partial", "b.parquet", ".hidden"):
        (tmp_path / name).touch()
    atomic.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "b.parquet"]


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    message = f"in use by process {os.getpid()} on {socket.gethostname()}"
    with locked(tmp_path), pytest.raises(InUse, match=message), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text("utf-8"))["pid"] == os.getpid()
    assert not (tmp_path / "lock.json").exists()


def test_another_process_is_refused_and_named(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom veridical.flows.files.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('in', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(InUse, match=f"in use by process {other.pid} on"), locked(tmp_path):
            pass
        other.communicate()
    with locked(tmp_path):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom veridical.flows.files.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    left = json.loads((tmp_path / "lock.json").read_text("utf-8"))
    assert left["pid"] != os.getpid()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("age", [0, -86_400])
def test_a_lock_that_the_system_gives_is_ours_whatever_a_stopped_container_left_written(tmp_path, age):
    """A container has another host name each time it starts, and its clock may have been set back by a day."""
    container = json.dumps({"pid": 1, "host": "4f1c0ffee", "since": "then"})
    for name in ("lock", "lock.json"):  # an earlier version wrote into the lock itself
        (tmp_path / name).write_text(container, encoding="utf-8")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text("utf-8"))["host"] == socket.gethostname()


def test_a_holder_that_is_half_written_is_named_with_question_marks(tmp_path):
    with locked(tmp_path):
        (tmp_path / "lock.json").write_text('{"pid": 1, "ho', encoding="utf-8")
        with pytest.raises(InUse, match=r"in use by process \? on \? since \?"), locked(tmp_path):
            pass


def test_without_locks_on_the_file_system_a_lock_file_keeps_others_out(tmp_path, monkeypatch):
    import fcntl

    def unable(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", unable)
    answers = r"in use by process .*; if you know that it does not run any more, delete .*lock\.soft"
    with locked(tmp_path), pytest.raises(InUse, match=answers), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_in_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"nothing can be written in .*file/x \(.+\); choose another --out"), locked(
        tmp_path / "file" / "x"
    ):
        pass


def test_a_lock_that_there_is_no_room_for_says_so_and_what_to_do(tmp_path, monkeypatch):
    def full(lock, timeout):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("filelock.FileLock.acquire", full)
    with (
        pytest.raises(atomic.DiskFull, match=r"no room for the lock of .*out \(No space left on device\)\. Noth"),
        locked(tmp_path / "out"),
    ):
        pass


def test_a_folder_that_was_made_for_a_lock_and_holds_nothing_else_goes_again(tmp_path):
    with pytest.raises(ValueError, match="refused"), locked(tmp_path / "new"):
        raise ValueError("refused")
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    (tmp_path / "there").mkdir()
    with locked(tmp_path / "there"):
        pass
    assert sorted(path.name for path in (tmp_path / "used").iterdir()) == ["file", "lock"]
    assert (tmp_path / "there" / "lock").exists()
