"""Evaluates the demo's run, several commands in one process, since importing torch takes longer than most of them:

    python -m prior_fast.bench.demo.evaluate FOLDER NAME...

FOLDER: has the run and the prepared dataset; each result gets a folder in it.
NAME: zero-shot, retrieval, generation, bank or pictures.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from prior_fast.bench.demo.commands import EVALUATIONS, measurements
from prior_fast.bench.demo.prompts import write_prompts
from prior_fast.cli.main import main as run_command


def main(words: Sequence[str] | None = None) -> int:
    """Run the commands in order; returns the exit code of the first that fails, or 0."""
    parser = argparse.ArgumentParser(prog="python -m prior_fast.bench.demo.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("names", nargs="+", choices=(*EVALUATIONS, "pictures"), metavar="NAME")
    args = parser.parse_args(words)
    write_prompts(args.folder)
    commands = {command.makes.name: command for command in measurements(args.folder, args.folder / "prepared")}
    for name in args.names:
        command = commands[name]
        print(shlex.join(["prior-fast", *command.words]), flush=True)
        if code := run_command(command.words):
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
