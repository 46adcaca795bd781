"""All commands of prior-fast, and running some words in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from prior_fast.cli.main import make_parser
from prior_fast.cli.parser import Parser

HEAVY = {"torch", "transformers", "triton", "matplotlib", "sklearn"}
_CODE = (
    "import sys\n"
    "from prior_fast.cli.main import main\n"
    "try:\n"
    "    code = main(sys.argv[1:])\n"
    "except SystemExit as end:\n"
    "    code = end.code\n"
    "print(*sys.modules, file=open('modules', 'w'))\n"
    "sys.exit(code)\n"
)


def parsers(parser: Parser | None = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """The words of each command and task, and their parsers; those of `prior-fast` itself are none."""
    parser = parser or make_parser()
    parser.complete()
    yield words, parser
    for name, inner in parser.verbs.choices.items() if parser.verbs else ():
        yield from parsers(inner, (*words, name))


def run_alone(folder: Path, *words: str) -> tuple[int, str, str, set[str]]:
    """The exit code, what is written to standard output and standard error, and the modules that were loaded."""
    command = [sys.executable, "-c", _CODE, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    modules = folder / "modules"
    loaded = set(modules.read_text().split())
    modules.unlink()
    return done.returncode, done.stdout, done.stderr, loaded
