"""The folder that `prior-fast prepare` makes: checked, held by one command at a time, and cleaned, before any work."""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prior_fast.errors import Interrupted, RunError, UsageError
from prior_fast.files.atomic import replaceable
from prior_fast.files.claim import KINDS, LOCK_FILE, check_writable, claim_new, kind_of, remove_leftovers
from prior_fast.files.lock import lock
from prior_fast.files.space import explained, need_space
from prior_fast.prepare.paths import is_file
from prior_fast.prepare.shard import Shard
from prior_fast.radiology.xray import IMAGE_SIZE

_AGAIN = "start the same command again to go on from there"
_SHARD_LOCKS = ".shard-*.lock"
_SHOWN_NAMES = 3
# How many files are looked for to estimate how many of them are there.
_LOOKED_FOR = 256
_TRIES = 10


def partial_of(out: Path) -> Path:
    """The folder beside `out` that holds the files of an unfinished dataset."""
    return out.with_name(f"{out.name}.partial")


def resolved_out(out: Path) -> Path:
    """The folder that --out means, symbolic links followed.

    Raises:
        UsageError: it is a file, the current folder or one above it, or its links lead in a circle.
    """
    try:
        resolved = replaceable(out)
    except (OSError, RuntimeError):
        raise UsageError(f"--out {out}: its symbolic links lead in a circle") from None
    if resolved.exists() and not resolved.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder that does not exist yet")
    return resolved


def is_occupied(out: Path) -> bool:
    """Whether the folder of the new dataset exists and is not empty."""
    return out.is_dir() and any(out.iterdir())


def not_empty(out: Path) -> str:
    """The message that refuses a folder, with what it holds."""
    kind = kind_of(out)
    names = sorted(path.name for path in out.iterdir())
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    holds = KINDS.get(kind, kind) if kind else ", ".join(names[:_SHOWN_NAMES]) + more
    return f"--out {out} is not empty; give a folder that does not exist yet (it holds {holds})"


@contextmanager
def claim(out: Path, shard: Shard | None = None) -> Iterator[Path]:
    """Hold the output folder. A whole run or a merge holds it alone; shards hold it together, each its own number.

    What killed runs left unfinished is removed: by a shard only later, when it knows its share. If nothing was kept,
    the folders that were made here are removed again.

    Yields:
        The folder, symbolic links followed.

    Raises:
        UsageError: it can't be replaced or written.
        RunError: another process holds it, the disk is full, or a worker process died.
        Interrupted: Ctrl-C.
    """
    resolved = resolved_out(out)
    made = [folder for folder in resolved.parents if not folder.exists()]
    try:
        with _explained(resolved), _alone(out, resolved) if shard is None else _together(out, resolved, shard):
            yield resolved
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _alone(out: Path, resolved: Path) -> Iterator[None]:
    partial = partial_of(resolved)
    for path in partial.glob(_SHARD_LOCKS):
        # Names the process of a shard that runs; removes the file of one that was killed.
        with lock(path, f"--out {out}"):
            pass
    with claim_new(out):
        remove_leftovers(partial)
        try:
            yield
        finally:
            with suppress(OSError):
                partial.rmdir()


@contextmanager
def _together(out: Path, resolved: Path, shard: Shard) -> Iterator[None]:
    check_writable(resolved.parent, f"--out {out}")
    resolved.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(resolved)
    with lock(resolved.with_name(f".{resolved.name}{LOCK_FILE}"), f"--out {out}", shared=True):
        try:
            with _shard_lock(partial, out, shard):
                yield
        finally:
            with suppress(OSError):
                partial.rmdir()


@contextmanager
def _shard_lock(partial: Path, out: Path, shard: Shard) -> Iterator[None]:
    path = partial / _SHARD_LOCKS.replace("*", f"{shard.index}-of-{shard.count}")
    with ExitStack() as held:
        for left in reversed(range(_TRIES)):
            partial.mkdir(exist_ok=True)
            try:
                held.enter_context(lock(path, f"--out {out}, shard {shard},"))
                break
            except FileNotFoundError:
                # Another shard removed the empty folder just now.
                if not left:
                    raise
        yield


def remove_share(partial: Path, stem: str, numbers: Sequence[int]) -> None:
    """Remove the unfinished chunks with these numbers that killed runs of this shard left."""
    own = {f"{number:06d}" for number in numbers}
    for path in partial.glob(f".{stem}-*.partial"):
        if path.name.split("-")[1] in own:
            path.unlink()


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn what ends a run early into one line that says what to do."""
    try:
        with explained(out):
            yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"stopped; {_AGAIN}") from error
    except BrokenProcessPool as error:
        raise RunError(f"a worker process died, perhaps for lack of memory; {_AGAIN}, with fewer --workers") from error
    except MemoryError as error:
        raise RunError(f"there is not enough memory; {_AGAIN}, with fewer --workers") from error


def need_images(out: Path, root: Path, images: Sequence[str], stored: int, dataset: bool) -> None:
    """Refuse to begin if the disk of `out` has no space for the chunks of these images, and the dataset.

    Of the images, a sample is looked for: tables often name more than was downloaded.

    Args:
        images: paths relative to `root`, or absolute.
        stored: bytes of the chunks that are there already.
        dataset: whether the dataset is made too, which has the size of all chunks again.

    Raises:
        RunError: too few bytes are free.
    """
    looked_for = images[:: max(1, len(images) // _LOOKED_FOR)]
    there = sum(is_file(root / name) for name in looked_for)
    needed = len(images) * there // max(1, len(looked_for)) * IMAGE_SIZE**2
    total = max(0, needed - stored) + needed * dataset
    need_space(out, total, f"preparing {len(images)} images")
