"""A folder where the commands and the Python code of a page run, one after another."""

import ast
import contextlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from prior_fast.cli.main import main
from tests.pages.artefacts import MADE, RAW
from tests.pages.blocks import ROOT, Block
from tests.pages.known import MAIN
from tests.pages.rules import shrink
from tests.pages.values import run_checked

# Behind these options stands what others made; behind `--data NAME=` too.
_RAW_OPTIONS = ("--images", "--jpegs", "--reports")


class Sandbox:
    """A folder in which the names of the pages exist.

    What a command of the page has made is what later ones find under its name. Other names are copies of artefacts. A
    command finds no earlier result under the name of its own: the commands of a page may be choices. With `--resume` it
    finds that of the page.

    Args:
        folder: an empty folder.
        get: gives the path of an artefact by its kind.
    """

    def __init__(self, folder: Path, get: Callable[[str], Path]) -> None:
        self.folder, self._get = folder, get
        self._made: set[str] = set()
        self._placed: dict[str, str] = {}
        self._variables: dict[str, object] = {"__name__": "page"}
        (folder / "bench").symlink_to(ROOT / "bench")

    def run(self, words: Sequence[str]) -> None:
        """Run a command of prior-fast in small, in this process.

        words: with the program: `prior-fast`, or `python -m` or `torchrun ... -m` and its module.

        Raises:
            AssertionError: its exit code is wrong.
        """
        assert words[0] == "prior-fast" or MAIN in words, f"{words[0]} is run by no test: say why in NOT_RUN"
        own = list(words[words.index(MAIN) + 1 :] if MAIN in words else words[1:])
        own = [word.removeprefix("/data/") for word in own]
        small, codes = shrink(own)
        self._place(small)
        with contextlib.chdir(self.folder):
            try:
                code = main(small)
            except SystemExit as end:  # --help and --version
                code = int(end.code or 0)
        assert code in codes, f"exit code {code} of {shlex.join(['prior-fast', *small])}"

    def python(self, block: Block) -> None:
        """Run a block of Python with the names of the page's earlier blocks; comments with shapes and values hold."""
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._provide(node.value, MADE)
        with contextlib.chdir(self.folder):
            run_checked(block.text, self._variables, block.place)

    def _place(self, words: Sequence[str]) -> None:
        """Put what the command reads in its place, and take away what it will write."""
        out = ""
        for before, word in zip(["", *words], words):
            if before == "--out":
                out = word
            elif before in _RAW_OPTIONS or (before == "--data" and "=" in word):
                self._provide(word.rpartition("=")[2], {**MADE, **RAW})
            else:
                self._provide(word.rpartition("=")[2], MADE)
        if out:
            if self._goes_on(words, out):
                self._provide(out, MADE)
            else:
                self._remove(out)
            self._made.add(out)

    def _goes_on(self, words: Sequence[str], out: str) -> bool:
        """Whether the command continues what is there: a run of the page, or one that names no preset of its own."""
        if "--resume" in words:
            return out in self._made or "--preset" not in words
        return words[:2] == ["prepare", "merge"]

    def _provide(self, name: str, kinds: dict[str, str]) -> None:
        """Copy the artefact that a name stands for, unless a command of the page has made it."""
        alias = next((alias for alias in kinds if name == alias or name.startswith(f"{alias}/")), None)
        if alias is None or any(alias == made or alias.startswith(f"{made}/") for made in self._made):
            return
        if self._placed.get(alias) != kinds[alias]:
            self._remove(alias)
            source, target = self._get(kinds[alias]), self.folder / alias
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copyfile(source, target)
            self._placed[alias] = kinds[alias]

    def _remove(self, name: str) -> None:
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        self._placed.pop(name, None)
