"""Small commands that write `out` rightly or wrongly: tests of the suite itself run them in place of prior-fast."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

OUT, PARTIAL = Path("out"), Path(".out.partial")
LINES = [f"line {number}\n".encode() * 700 for number in range(3)]  # of more than a page


def careful() -> None:
    """Written beside its place, flushed, renamed, and the name flushed."""
    _write(PARTIAL, flush=True)
    PARTIAL.replace(OUT)
    _flush(Path())


def unflushed() -> None:
    """Renamed before the data are on the disk."""
    _write(PARTIAL, flush=False)
    PARTIAL.replace(OUT)
    _flush(Path())


def unflushed_name() -> None:
    """What was there before is removed at once; the new name is not flushed."""
    _write(PARTIAL, flush=True)
    PARTIAL.replace(OUT)
    Path("input").unlink(missing_ok=True)


def in_place() -> None:
    """Written where readers look for it."""
    _write(OUT, flush=True)
    _flush(Path())


def untidy() -> None:
    """Like careful, but a killed process leaves a file that nobody removes."""
    partial = Path(f".out.{os.getpid()}.partial")
    _write(partial, flush=True)
    partial.replace(OUT)
    _flush(Path())


def deaf() -> None:
    """Says that it is done, whatever happens."""
    try:
        careful()
    except OSError:
        PARTIAL.unlink(missing_ok=True)


def mute() -> None:
    """Its message says not where."""
    try:
        careful()
    except OSError as error:
        raise OSError(error.strerror) from None


def sleepy() -> None:
    """Waits for ever after a fault."""
    try:
        careful()
    except OSError:
        time.sleep(3600)


def endless() -> None:
    time.sleep(3600)


def many_calls() -> None:
    """One of each operation that Python has, for the record of operations."""
    folder = Path("out.partial2")
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    _write(folder / "a", flush=True)
    shutil.copyfile(folder / "a", folder / "sent")
    with (folder / "a").open("rb") as source, (folder / "copied").open("wb") as copy:
        os.copy_file_range(source.fileno(), copy.fileno(), 5000)
        os.pwrite(copy.fileno(), b"in the middle", 4090)
        os.writev(copy.fileno(), [b"several ", b"parts"])
        copy.truncate(9000)
        os.posix_fallocate(copy.fileno(), 0, 9500)
    with (folder / "a").open("ab") as file:
        file.write(b"appended")
    with (folder / "a").open("r+b") as file:
        file.write(b"overwritten")
    os.truncate(folder / "a", 3000)
    os.link("a", "linked", src_dir_fd=handle, dst_dir_fd=handle)
    os.symlink("a", "symbolic", dir_fd=handle)
    os.mkdir("inner", dir_fd=handle)
    os.rename("sent", "inner/../inner/renamed", src_dir_fd=handle, dst_dir_fd=handle)
    (folder / "gone").touch()
    os.unlink("gone", dir_fd=handle)
    (folder / "empty").mkdir()
    os.rmdir("empty", dir_fd=handle)
    (folder / "tree/below").mkdir(parents=True)
    _write(folder / "tree/below/b", flush=False)
    shutil.rmtree(folder / "tree")
    os.close(handle)
    folder.rename(OUT)


WRITERS = {
    each.__name__: each
    for each in (careful, unflushed, unflushed_name, in_place, untidy, deaf, mute, sleepy, endless, many_calls)
}


def main(words: Sequence[str]) -> int:
    """Make `out`, unless it is there."""
    if OUT.exists():
        return 0
    try:
        WRITERS[words[0]]()
    except OSError as error:
        place = f": {error.filename or 'out'}" if error.errno else ""
        print(f"prior-fast: {error.strerror or error}{place}", file=sys.stderr)
        return 1
    return 0


def _write(path: Path, flush: bool) -> None:
    with path.open("wb", buffering=0) as file:
        for line in LINES:
            if file.write(line) != len(line):
                raise OSError(28, "No space left on device", str(path))
        if flush:
            os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
