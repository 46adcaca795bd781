"""Output folders have one kind and one owner, and lose what killed processes left."""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from prior_fast.errors import RunError, UsageError
from prior_fast.files.claim import KINDS, check_kind, claim_folder, claim_new, kind_of, remove_leftovers
from prior_fast.files.lock import lock

FORK = multiprocessing.get_context("fork")


def hold(path: Path, shared: bool, says: Connection) -> None:
    with lock(path, "it", shared):
        says.send("held")
        says.recv()


class Holder:
    """Another process that holds a lock."""

    def __init__(self, path: Path, shared: bool = False) -> None:
        self.end, other = FORK.Pipe()
        self.process = FORK.Process(target=hold, args=(path, shared, other))
        self.process.start()
        assert self.end.recv() == "held"

    def leave(self) -> None:
        self.end.send("leave")
        self.process.join()
        assert self.process.exitcode == 0

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


def test_the_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = Holder(path)
    who = f"process {holder.process.pid} on {socket.gethostname()} since "
    with pytest.raises(RunError, match=f"^it is in use by {who}"), lock(path, "it"):
        pytest.fail("the block was entered")
    holder.leave()
    assert not path.exists()
    with lock(path, "it"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    Holder(path).kill()
    assert path.exists()
    with lock(path, "it"):
        pass
    assert not path.exists()


def test_the_system_names_an_owner_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = Holder(path)
    path.write_text("")
    with pytest.raises(RunError, match=f"in use by process {holder.process.pid} on this machine"), lock(path, "it"):
        pytest.fail("the block was entered")
    holder.leave()


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / ".lock", "it"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_shared_locks_go_together_and_keep_others_out(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first, second = Holder(path, shared=True), Holder(path, shared=True)
    with pytest.raises(RunError, match=r"in use by process \d+ on this machine"), lock(path, "it"):
        pytest.fail("the block was entered")
    first.leave()
    assert path.exists()
    with pytest.raises(RunError), lock(path, "it"):
        pytest.fail("the block was entered")
    second.leave()
    assert not path.exists()
    holder = Holder(path)
    with pytest.raises(RunError), lock(path, "it", shared=True):
        pytest.fail("the block was entered")
    holder.leave()


def test_a_folder_is_marked_and_another_kind_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out, "run") as folder:
        assert folder == out and kind_of(out) == "run"
    assert sorted(path.name for path in out.iterdir()) == ["kind.json"]
    with claim_folder(out, "run"):
        pass
    with pytest.raises(UsageError, match=f"--out {out} holds a training run: give another folder"):
        check_kind(out, "evaluation")
    with pytest.raises(UsageError, match="holds a training run"), claim_folder(out, "pictures"):
        pytest.fail("the block was entered")
    assert sorted(path.name for path in out.iterdir()) == ["kind.json"]


@pytest.mark.parametrize(
    ("name", "what"),
    [("dataset.json", "a prepared dataset"), ("checkpoint.json", "a checkpoint"), ("checkpoints", "a training run")],
)
def test_folders_without_a_mark_are_known_by_their_files(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=f"holds {what}"):
        check_kind(tmp_path, "evaluation")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_files_are_no_reason_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "slurm-1.out").write_text("")
    with claim_folder(tmp_path, "run"):
        assert kind_of(tmp_path) == "run"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "prior-fast-folder"}', "\udc80"])
def test_a_damaged_mark_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "kind.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=r"kind\.json can't be read"):
        check_kind(tmp_path, "run")


@pytest.mark.parametrize("claim", [lambda path: claim_folder(path, "run"), claim_new])
def test_a_file_is_no_folder(claim: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="is a file"), claim(path):
            pytest.fail("the block was entered")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("claim", [lambda path: claim_folder(path, "run"), claim_new])
def test_a_place_without_permission_is_refused(claim: Callable, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="is not writable"), claim(tmp_path / "locked" / "out"):
        pytest.fail("the block was entered")


def test_claims_remove_what_killed_processes_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for folder in (out, tmp_path):
        (folder / ".out.12.partial").mkdir(parents=True)
        (folder / ".other.12.partial").write_text("")
    with claim_folder(out, "run"):
        assert sorted(path.name for path in out.iterdir()) == [".lock", "kind.json"]
    with claim_new(out):
        # Beside the folder only its own rest: others write there too.
        assert sorted(path.name for path in tmp_path.iterdir()) == [".other.12.partial", ".out.lock", "out"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.12.partial", "out"]


def test_an_interrupted_replacement_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".out.12.old").mkdir()
    (tmp_path / ".out.12.old" / "good").write_text("")
    with claim_new(tmp_path / "out"):
        assert (tmp_path / "out" / "good").exists()


def test_a_name_with_signs_of_patterns_is_no_pattern(tmp_path: Path) -> None:
    others = [".ab.1.partial", ".a*.b.1.partial", ".a*.partial", ".a*.1.partial.txt", ".xa*.1.partial"]
    for name in others:
        (tmp_path / name).write_text("")
    (tmp_path / ".a*.1.partial").write_text("")
    remove_leftovers(tmp_path, "a*")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_failed_command_leaves_no_folders_above(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim_new(tmp_path / "a" / "b" / "c"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with claim_new(tmp_path / "a" / "b" / "c") as folder:
        folder.mkdir()
    assert folder.is_dir()


def test_every_kind_has_words() -> None:
    assert all(words and words[0].islower() for words in KINDS.values())
