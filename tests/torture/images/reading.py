"""Reading files in a process of its own with little memory, which reports what each file gave.

`python -m tests.torture.images.reading FIRST LAST` reads that range of mutations of every seed.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.torture.images.mutations import mutated
from tests.torture.images.seeds import seeds

ROOT = Path(__file__).parents[3]
_PREFIX = "read: "


@dataclass(frozen=True)
class Outcome:
    """What the reader made of a file.

    Attributes:
        reason: why the file was refused; "" if it gave an image.
        error: an exception other than UnreadableImage, which is a fault of the reader; "" if there was none.
        peak: the process's greatest memory so far, in bytes.
        seconds: the time of this file.
    """

    name: str
    reason: str
    error: str
    peak: int
    seconds: float


def read_files(paths: Sequence[Path], memory: int, timeout: float, max_pixels: int | None = None) -> list[Outcome]:
    """Read files one after the other in another process. A crash or a hang raises, with the file's name.

    Args:
        memory: the address space of the process after its imports may grow by so many bytes.
        timeout: seconds for all files.

    Raises:
        AssertionError: the process ended early.
        subprocess.TimeoutExpired: it did not end in time.
    """
    words = [sys.executable, "-m", "tests.torture.images.reading", "--files", str(memory), str(max_pixels or 0)]
    names = "\n".join(map(str, paths))
    done = subprocess.run(words, input=names, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
    lines = [line.removeprefix(_PREFIX) for line in done.stdout.splitlines() if line.startswith(_PREFIX)]
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    last = paths[len(outcomes)] if len(outcomes) < len(paths) else None
    assert last is None, f"the process ended with {done.returncode} at {last}: {done.stderr[-2000:]}"
    return outcomes


def read_mutations(kinds: Iterable[str], numbers: Iterable[int], memory: int, timeout: float) -> list[Outcome]:
    """Read the mutations with these numbers of the seeds of these kinds. The outcomes are named "kind/number"."""
    files, numbers = seeds(), list(numbers)
    with TemporaryDirectory() as folder:
        paths = []
        for place, kind in enumerate(kinds):
            for number in numbers:
                paths.append(Path(folder) / kind.replace(" ", "_") / str(number))
                paths[-1].parent.mkdir(exist_ok=True)
                paths[-1].write_bytes(mutated(files[kind], 1_000_003 * place + number))
        return read_files(paths, memory, timeout)


def faults(outcomes: Iterable[Outcome]) -> list[str]:
    """What is wrong in the outcomes: errors of other types, and reasons that are no single line."""
    wrong = []
    for outcome in outcomes:
        if outcome.error or "\n" in outcome.reason or len(outcome.reason) > 400:
            wrong.append(f"{outcome.name}: {outcome.error or repr(outcome.reason)}")
    return wrong


def _serve(memory: int, max_pixels: int) -> None:
    """Read the files that the standard input names, and print an outcome for each."""
    import prior_fast.radiology.dicom  # noqa: F401  so that its imports are not counted
    from prior_fast.radiology.limits import MAX_PIXELS, limited_pixels
    from prior_fast.radiology.xray import UnreadableImage, read_xray

    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    for line in sys.stdin:
        path, begin, reason, error = Path(line.rstrip("\n")), time.perf_counter(), "", ""
        try:
            with limited_pixels(max_pixels or MAX_PIXELS):
                read_xray(path)
        except UnreadableImage as refusal:
            reason = str(refusal)
        except BaseException as fault:
            error = f"{type(fault).__name__}: {fault}"
        # Not getrusage: its number begins with the memory of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
        outcome = {"name": "/".join(path.parts[-2:]), "reason": reason, "error": error, "peak": peak}
        seconds = round(time.perf_counter() - begin, 3)
        print(_PREFIX + json.dumps({**outcome, "seconds": seconds}), flush=True)


def _main() -> None:
    if sys.argv[1] == "--files":
        _serve(int(sys.argv[2]), int(sys.argv[3]))
        return
    first, last = int(sys.argv[1]), int(sys.argv[2])
    for kind in seeds():
        outcomes = read_mutations([kind], range(first, last), memory=2 << 30, timeout=3600)
        slowest, images = max(one.seconds for one in outcomes), sum(not one.reason for one in outcomes)
        peak = max(one.peak for one in outcomes) >> 20
        print(f"{kind}: {images} images of {len(outcomes)}, at most {peak} MiB and {slowest} s a file")
        print("\n".join(faults(outcomes)))


if __name__ == "__main__":
    _main()
