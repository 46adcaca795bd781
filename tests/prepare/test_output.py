"""The output folder: one command at a time, nothing left behind, and refusals before any work."""

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from prior_fast.errors import Interrupted, RunError, UsageError
from prior_fast.files import space
from prior_fast.prepare.output import claim, need_images, not_empty, remove_share
from prior_fast.prepare.shard import Shard

HELD = rf"in use by process {os.getpid()} on .*: wait for its end, or give another folder"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("first", "second"),
    [(None, None), (None, Shard(1, 2)), (Shard(1, 2), None), (Shard(1, 2), Shard(1, 2))],
)
def test_the_second_command_is_told_of_the_first(out: Path, first: Shard | None, second: Shard | None) -> None:
    with claim(out, first):
        with pytest.raises(RunError, match=HELD), claim(out, second):
            pass
        # The refused one removed nothing of the other's.
        with pytest.raises(RunError, match=HELD), claim(out, second):
            pass
    with claim(out, second):
        pass
    assert not list(out.parent.iterdir())


def test_shards_hold_it_together(out: Path) -> None:
    with claim(out, Shard(1, 3)), claim(out, Shard(3, 3)), pytest.raises(RunError, match=HELD), claim(out):
        pass
    with claim(out):
        pass
    assert not list(out.parent.iterdir())


def test_what_killed_runs_left_is_removed(out: Path) -> None:
    partial = out.with_name("out.partial")
    unfinished = [partial / f".chunk-{number:06d}-abc.bin.77.partial" for number in (1, 2)]
    keep = [partial / name for name in ("chunk-000001-abc.bin", "mine.txt")]

    def left_by_killed_runs() -> None:
        partial.mkdir(exist_ok=True)
        for path in (*unfinished, *keep, partial / ".shard-1-of-2.lock", out.with_name(".out.lock")):
            path.write_text("", encoding="utf-8")

    left_by_killed_runs()
    with claim(out, Shard(1, 2)) as resolved:
        remove_share(partial, "chunk", [2, 4])
    assert resolved == out and {*keep, unfinished[0]} == set(partial.iterdir())
    left_by_killed_runs()
    out.with_name(".out.77.partial").mkdir()
    with claim(out):
        pass
    assert set(partial.iterdir()) == set(keep) and list(out.parent.iterdir()) == [partial]


def test_folders_that_were_made_for_nothing_are_removed(tmp_path: Path) -> None:
    for shard in (None, Shard(1, 2)):
        with pytest.raises(UsageError), claim(tmp_path / "a/b/out", shard):
            raise UsageError("no")
        assert not list(tmp_path.iterdir())
    with claim(tmp_path / "a/b/out") as out:
        out.mkdir()
    assert out.is_dir()


def test_a_link_means_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    with claim(tmp_path / "link") as one, claim(tmp_path / "dangling") as other:
        assert (one, other) == (tmp_path / "far", tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "is the current folder or one above it"),
        ("..", "is the current folder or one above it"),
        ("/", "is the current folder or one above it"),
        ("file", "is a file; give a folder that does not exist yet"),
        ("file/out", "is a file"),
        ("loop", "its symbolic links lead in a circle"),
    ],
)
@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
def test_folders_that_can_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str, shard: Shard | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = set(tmp_path.iterdir())
    with pytest.raises(UsageError, match=message), claim(Path(name), shard):
        pass
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["log.jsonl"], "a training run"),
        (["index.html"], "pictures of a model"),
        (["dataset.json"], "a prepared dataset"),
        (["d", "b", "a", "c"], "a, b, c and 1 more"),
    ],
)
def test_what_a_folder_holds(tmp_path: Path, names: list[str], what: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert not_empty(tmp_path).endswith(f"is not empty; give a folder that does not exist yet (it holds {what})")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (KeyboardInterrupt(), Interrupted, "^stopped; start the same command again to go on from there$"),
        (BrokenProcessPool(), RunError, "a worker process died, perhaps for lack of memory; .* with fewer --workers"),
        (MemoryError(), RunError, "not enough memory; .* with fewer --workers"),
        (OSError(28, "No space left on device"), RunError, "no space is left for .*out"),
    ],
)
@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
def test_what_ends_a_run_is_one_line(
    out: Path, error: BaseException, kind: type[Exception], message: str, shard: Shard | None
) -> None:
    with pytest.raises(kind, match=message), claim(out, shard):
        raise error
    assert not list(out.parent.iterdir())


def test_space_is_asked_for_what_is_there(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.png" for number in range(1000)]
    for name in names[::2]:
        (out.parent / name).write_bytes(b"")
    # Of 1,000 images 500 are there: 50,176 bytes each, for the chunks and for the dataset.
    monkeypatch.setattr(space, "free_bytes", lambda _: 40_000_000)
    need_images(out, out.parent, names[::2], 0, dataset=False)
    with pytest.raises(RunError, match=r"preparing 500 images needs 50.2 MB in .*, where 40.0 MB are free"):
        need_images(out, out.parent, names[::2], 0, dataset=True)
    need_images(out, out.parent, names[::2], 20_000_000, dataset=True)
    need_images(out, out.parent, names[1::2], 0, dataset=True)
    need_images(out, out.parent, [], 0, dataset=True)
