"""Files and folders are whole, flushed, readable for others, and follow links."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prior_fast.errors import RunError, UsageError
from prior_fast.files import atomic, atomic_directory, atomic_path, recover, remove_folder, write_json, write_text


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was flushed and renamed, in order: ("flush", path) and ("rename", new path)."""
    events: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def note_fsync(descriptor: int) -> None:
        events.append(("flush", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        events.append(("rename", str(target)))
        return replace(path, target)

    def note_rename(path: Path, target: Path) -> Path:
        events.append(("rename", str(target)))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    monkeypatch.setattr(Path, "rename", note_rename)
    return events


def test_a_file_is_flushed_before_its_rename_and_its_folder_after(
    tmp_path: Path, flushed: list[tuple[str, str]]
) -> None:
    write_text(tmp_path / "a.txt", "words")
    partial = str(tmp_path / f".a.txt.{os.getpid()}.partial")
    assert flushed == [("flush", partial), ("rename", str(tmp_path / "a.txt")), ("flush", str(tmp_path))]


@pytest.mark.parametrize("many", [1, 1000])
def test_a_folder_is_flushed_with_all_below_before_its_rename(
    many: int, tmp_path: Path, flushed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_MANY_FILES", many)
    monkeypatch.setattr(os, "sync", lambda: flushed.append(("sync", "")))
    with atomic_directory(tmp_path / "new") as folder:
        (folder / "below").mkdir()
        for name in ("one", "two", "below/three"):
            (folder / name).write_text(name)
    renamed = flushed.index(("rename", str(tmp_path / "new")))
    before = [path for what, path in flushed[:renamed] if what == "flush"]
    if many == 1:
        assert flushed[0] == ("sync", "")
    else:
        own = str(tmp_path / f".new.{os.getpid()}.partial")
        assert sorted(before) == sorted([own, f"{own}/below", f"{own}/one", f"{own}/two", f"{own}/below/three"])
        # A name is on the disk after its folder, a folder's name after the folder above it.
        assert before.index(f"{own}/below/three") < before.index(f"{own}/below") < before.index(own)
    assert flushed[renamed + 1 :] == [("flush", str(tmp_path))]


def test_a_failed_block_leaves_the_old_file_and_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file") as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "a").read_text() == "old"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_with_and_without_an_exchange(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    for text in ("old", "new"):
        with atomic_directory(tmp_path / "folder") as folder:
            (folder / text).write_text(text)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_old_folder_has_its_name_until_the_new_one_has(tmp_path: Path, flushed: list[tuple[str, str]]) -> None:
    (tmp_path / "folder").mkdir()
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("new")
    # No rename at all: both names changed at once.
    assert [path for what, path in flushed if what == "rename"] == []
    assert (tmp_path / "folder" / "a").read_text() == "new"


@pytest.mark.parametrize("name", ["folder", "with [brackets] and *"])
def test_recover_puts_back_what_a_kill_between_two_renames_left(name: str, tmp_path: Path) -> None:
    retired = tmp_path / f".{name}.123.old"
    retired.mkdir()
    (retired / "a").write_text("good")
    recover(tmp_path / name)
    assert (tmp_path / name / "a").read_text() == "good" and hidden(tmp_path) == []
    # After the second rename the old one is only removed.
    retired.mkdir()
    recover(tmp_path / name)
    assert (tmp_path / name / "a").read_text() == "good" and hidden(tmp_path) == []
    # Another folder's rest is not touched.
    (tmp_path / ".other.123.old").mkdir()
    (tmp_path / f".{name}.longer.123.old").mkdir()
    recover(tmp_path / name)
    recover(tmp_path / "absent")
    assert hidden(tmp_path) == sorted([".other.123.old", f".{name}.longer.123.old"])


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
def test_a_writer_that_makes_private_files_does_not_keep_others_out(
    mask: int, file: int, folder: int, tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(mask)
    with atomic_path(tmp_path / "file") as partial:
        partial.write_text("a")
        partial.chmod(0o600)
    with atomic_directory(tmp_path / "folder") as inside:
        (inside / "a").write_text("a")
        (inside / "a").chmod(0o600)
        (inside / "run").write_text("a")
        (inside / "run").chmod(0o755)
    mode = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert mode == {"file": file, "folder": folder, "a": file, "run": 0o755 | file}


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old").write_text("old")
    (tmp_path / "near").symlink_to("far")
    with atomic_directory(tmp_path / "near") as folder:
        (folder / "new").write_text("new")
    assert (tmp_path / "near").is_symlink() and [path.name for path in (tmp_path / "far").iterdir()] == ["new"]
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "words")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "words"
    (tmp_path / "nowhere").symlink_to("made")
    with atomic_directory(tmp_path / "nowhere") as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / "made" / "a").exists() and (tmp_path / "nowhere").is_symlink()


@pytest.mark.parametrize("name", [".", "..", "../.."])
def test_the_current_folder_is_not_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(UsageError, match="is the current folder or one above it"), atomic_directory(Path(name)):
        pytest.fail("the block was entered")
    assert here.is_dir()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_its_path_and_leaves_nothing(code: int, tmp_path: Path) -> None:
    for context in (atomic_path, atomic_directory):
        with pytest.raises(RunError, match=f"^no space is left for {tmp_path}/new .* free"), context(tmp_path / "new"):
            raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


def test_another_error_gets_the_path_unless_it_has_one(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "new"):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.filename == str(tmp_path / "new") and caught.value.errno == errno.EIO
    with pytest.raises(FileNotFoundError) as missing, atomic_path(tmp_path / "new"):
        (tmp_path / "absent").read_bytes()
    assert missing.value.filename == str(tmp_path / "absent")


def test_json_without_a_meaning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_removed_is_named_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", "below")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", broken)
        with pytest.raises(OSError) as caught:
            remove_folder(tmp_path / "folder")
    assert caught.value.filename == str(tmp_path / "folder") and caught.value.errno == errno.EIO
    remove_folder(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []
