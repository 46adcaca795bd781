"""Fuzz one parser with atheris, in this process: python -m tests.torture.fuzz.one PARSER FOLDER [libFuzzer's words].

FOLDER gets the slowest input, its seconds, and a command that starts this again: libFuzzer merges in a child process.
"""

import shlex
import sys
import time
from pathlib import Path

import atheris

from tests.torture.fuzz.corpora import target_of


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    parser, folder, *words = sys.argv[1:]
    again, slowest, seconds = (Path(folder) / name for name in ("again", "slowest", "seconds"))
    command = shlex.join([sys.executable, "-m", "tests.torture.fuzz.one", parser, folder])
    if not again.exists():
        again.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        again.chmod(0o755)
    with atheris.instrument_imports(include=["prior_fast"]):
        target = target_of(parser)
    # The first call is slower than any other.
    target(b"\0\0 1")
    longest = 0.0

    def timed(data: bytes) -> None:
        nonlocal longest
        begin = time.process_time()
        target(data)
        taken = time.process_time() - begin
        if taken > longest:
            longest = taken
            slowest.write_bytes(data)
            seconds.write_text(f"{taken:.4f}", encoding="ascii")

    atheris.Setup([str(again), *words], timed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
