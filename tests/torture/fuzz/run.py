"""Coverage-guided fuzzing: python tests/torture/fuzz/run.py --seconds N [--keep] [PARSER ...]

Fuzzes each parser for N seconds in a process of its own, from its corpus. An input may take a second and the process
2 GB. A parser stops at its first fault; the input stays in the folder that the table names. With --keep, inputs that
reach new code are added to the corpus, the fewest that reach all of it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.torture.fuzz.corpora import CORPUS, PARSERS  # noqa: E402

SECONDS_OF_INPUT, MEGABYTES = 1, 2048
# A corpus stays small, so that tests can replay it: it has at most so many files.
MOST_FILES = 80
_STATE = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+)")


@dataclass
class Outcome:
    """What came of fuzzing one parser; `slowest` in seconds of the processor."""

    executions: int
    coverage: int
    features: int
    crashes: int
    slowest: str
    kept: int
    said: str


def fuzz(parser: str, seconds: int, scratch: Path, keep: bool) -> Outcome:
    """Fuzz one parser in a process of its own."""
    found, faults = scratch / "found", scratch / "faults"
    for folder in (found, faults):
        folder.mkdir(parents=True)
    limits = [f"-timeout={SECONDS_OF_INPUT}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={PARSERS[parser]}"]
    words = [*limits, f"-max_total_time={seconds}", f"-artifact_prefix={faults}/", str(found), str(CORPUS / parser)]
    said = _libfuzzer(parser, scratch, words, seconds + 120)
    states = _STATE.findall(said)
    executions, coverage, features = map(int, states[-1]) if states else (0, 0, 0)
    crashes = len(list(faults.iterdir()))
    # Merging runs the inputs again.
    taken = (scratch / "seconds").read_text(encoding="ascii") if states else "-"
    kept = _keep(parser, scratch, found, limits) if keep and not crashes else 0
    return Outcome(executions, coverage, features, crashes, taken, kept, said)


def _keep(parser: str, scratch: Path, found: Path, limits: list[str]) -> int:
    """Add the fewest inputs to the corpus that reach what it does not reach; returns how many."""
    merged = scratch / "merged"
    shutil.copytree(CORPUS / parser, merged)
    _libfuzzer(parser, scratch, [*limits, "-set_cover_merge=1", str(merged), str(found)], 600)
    old = {path.name for path in (CORPUS / parser).iterdir()}
    new = sorted((path for path in merged.iterdir() if path.name not in old), key=lambda path: path.stat().st_size)
    kept = new[: max(0, MOST_FILES - len(old))]
    for path in kept:
        shutil.copy(path, CORPUS / parser / path.name)
    return len(kept)


def _libfuzzer(parser: str, scratch: Path, words: list[str], timeout: int) -> str:
    command = [sys.executable, "-m", "tests.torture.fuzz.one", parser, str(scratch), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def main() -> int:
    """Returns 0, 1 if a parser failed, 2 without atheris."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=60, help="for each parser; default 60")
    arguments.add_argument("--keep", action="store_true", help="add inputs that reach new code to the corpus")
    arguments.add_argument("parsers", nargs="*", metavar="PARSER", help=f"of {', '.join(PARSERS)}; default all")
    args = arguments.parse_args()
    if unknown := set(args.parsers) - set(PARSERS):
        arguments.error(f"there is no parser {sorted(unknown)[0]!r}; there are {', '.join(PARSERS)}")
    if find_spec("atheris") is None:
        print("atheris is not installed: install it (`python -m pip install atheris`) to fuzz by coverage")
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="fuzz"))
    print(f"{'parser':<12}{'executions':>12}{'coverage':>10}{'features':>10}{'crashes':>9}{'slowest s':>11}{'kept':>6}")
    failed = False
    for parser in args.parsers or PARSERS:
        outcome = fuzz(parser, args.seconds, scratch / parser, args.keep)
        shown = (outcome.executions, outcome.coverage, outcome.features, outcome.crashes, outcome.slowest, outcome.kept)
        print(f"{parser:<12}" + "".join(f"{cell:>{width}}" for cell, width in zip(shown, (12, 10, 10, 9, 11, 6))))
        if outcome.crashes or not outcome.executions:
            failed = True
            print("\n".join(outcome.said.splitlines()[-40:]), f"\n{parser}: the input is in {scratch / parser}")
    if not failed:
        shutil.rmtree(scratch)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
