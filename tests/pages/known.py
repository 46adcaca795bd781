"""Whether a command is one that exists: its program, options, settings and files. Nothing is run."""

import argparse
import itertools
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from unittest import mock

from prior_fast.cli.main import VERBS, parse
from prior_fast.cli.parser import Parser
from prior_fast.errors import UsageError
from tests.cli.commands import parsers
from tests.pages.blocks import ROOT

MAIN = "prior_fast.cli.main"
# What makes words a synopsis: dots, choices, optional parts, lists, and names in capitals.
_PLACEHOLDER = re.compile(r"\.\.\.|[|\[<]|, |(?<![\w.])[A-Z][A-Z]+\b")
# Programs of the system, which serve the commands beside them.
PLAIN = frozenset(("cd", "cp", "git", "head", "mkdir", "scontrol", "source", "tar"))


class Unknown(Exception):
    """A page names a command, an option, a setting or a file that does not exist."""


def check_command(words: Sequence[str]) -> None:
    """Check a command by its program.

    Raises:
        Unknown: it would be refused.
    """
    program, rest = words[0], list(words[1:])
    if program in PLAIN:
        return
    if program not in _CHECKS:
        raise Unknown(f"no test knows the program {program!r}: tests/pages/known.py says what can be checked of one")
    _CHECKS[program](rest)


def check_prior_fast(words: Sequence[str]) -> None:
    """The command's own parser and its own check of the settings take the words."""
    try:
        with redirect_stdout(StringIO()):
            args = parse(words)
        _check_settings(words, args)
    except UsageError as error:
        raise Unknown(str(error)) from None
    except SystemExit as end:  # --help and --version
        if end.code:
            raise Unknown(f"exit code {end.code}") from None


def _check_settings(words: Sequence[str], args: argparse.Namespace) -> None:
    from prior_fast.config import apply_overrides, preset, validate_config
    from prior_fast.downstream.config import TASKS, task_config
    from prior_fast.evaluation.config import evaluation_config
    from prior_fast.evaluation.learned_config import SPLITS, learned_config
    from prior_fast.pictures.config import pictures_config
    from prior_fast.reproduce.downloads import DOWNLOADS
    from prior_fast.reproduce.plan import split_settings
    from prior_fast.reproduce.tables import find_tables

    settings = getattr(args, "settings", [])
    verb = words[0]
    if verb == "train":
        validate_config(apply_overrides(preset(args.preset or "paper"), settings))
    elif verb == "evaluate":
        if args.task in TASKS:
            task_config(args.task, settings)
        elif args.task in SPLITS:
            learned_config(settings, args.task)
        else:
            evaluation_config(settings, task=args.task)
    elif verb == "pictures":
        pictures_config(settings)
    elif verb == "reproduce":
        find_tables(list(args.table))
        split_settings(settings, args.preset)
        unknown = [word for word in args.data if word.partition("=")[0] not in DOWNLOADS]
        if unknown:
            raise UsageError(f"--data {unknown[0]}: no such dataset")
    elif settings or (verb == "bench" and hasattr(args, "preset")):
        apply_overrides(preset(args.preset), settings)


def _check_python(words: list[str]) -> None:
    if words[:2] == ["-m", MAIN]:
        check_prior_fast(words[2:])
    elif words[:2] == ["-m", "pytest"]:
        _check_pytest(words[2:])
    elif words[:2] == ["-m", "pip"]:
        _check_pip(words[2:])
    elif words[:1] == ["-m"]:
        _check_options(module_help(words[1]), words[2:], words[1])
    else:
        path = next((path for path in (ROOT / words[0], ROOT / "examples" / words[0]) if path.is_file()), None)
        if path is None:
            raise Unknown(f"there is no {words[0]}")
        _check_options(_help(lambda: runpy.run_path(str(path), run_name="__main__"), words[0]), words[1:], words[0])


@cache
def module_help(module: str) -> str:
    """What `python -m MODULE --help` prints."""
    return _help(lambda: runpy.run_module(module, run_name="__main__"), f"-m {module}")


def _help(run: Callable[[], object], name: str) -> str:
    """What a script prints with --help."""
    said = StringIO()
    with mock.patch.object(sys, "argv", [name, "--help"]), redirect_stdout(said), redirect_stderr(said):
        try:
            run()
        except ImportError as error:
            raise Unknown(f"python {name}: {error}") from None
        except SystemExit:
            return said.getvalue()
    raise Unknown(f"python {name} does not know --help")


def _check_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    said = StringIO()
    try:
        with redirect_stderr(said):
            args = get_args_parser().parse_args(words)
    except SystemExit:
        raise Unknown(f"torchrun: {said.getvalue().strip().splitlines()[-1:]}") from None
    if not args.module:
        raise Unknown(f"torchrun runs no module: -m {MAIN} is missing")
    _check_python(["-m", args.training_script, *args.training_script_args])


def _check_make(words: list[str]) -> None:
    done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Unknown(done.stderr.strip())


def _check_pip(words: list[str]) -> None:
    if words[:1] != ["install"]:
        raise Unknown(f"pip {' '.join(words)}: only pip install is known here")
    for word, after in zip(words, [*words[1:], ""]):
        if word in ("--constraint", "-c", "--requirement", "-r"):
            _need_file(after)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for names in re.findall(r"^(?:\.|prior-fast)\[(.+)\]$", "\n".join(words), re.MULTILINE):
        unknown = set(names.split(",")) - extras.keys()
        if unknown:
            raise Unknown(f"pyproject.toml has no extra {', '.join(sorted(unknown))}")


def _check_pytest(words: list[str]) -> None:
    """Files and folders exist; options that take a value of their own are left out with it."""
    values = {after for word, after in itertools.pairwise(words) if re.fullmatch(r"-[a-z]", word)}
    for word in words:
        if not word.startswith("-") and word not in values:
            _need_file(word.partition("::")[0])


def _check_bash(words: list[str]) -> None:
    _need_file(words[0])
    done = subprocess.run(["bash", "-n", str(ROOT / words[0])], capture_output=True, text=True)
    if done.returncode:
        raise Unknown(done.stderr.strip())


def _check_sbatch(words: list[str]) -> None:
    """A script is one of the page's own; --wrap has a command."""
    for word, after in itertools.pairwise(words):
        if word == "--wrap":
            check_command(after.split())


def _check_jupyter(words: list[str]) -> None:
    """The notebook exists: `jupyter lab NOTEBOOK`."""
    for word in words:
        if word.endswith(".ipynb"):
            _need_file(word)


def _need_file(name: str) -> None:
    if not (ROOT / name).exists():
        raise Unknown(f"there is no {name}")


_CHECKS: dict[str, Callable[[list[str]], None]] = {
    "prior-fast": check_prior_fast,
    "python": _check_python,
    "torchrun": _check_torchrun,
    "make": _check_make,
    "pip": _check_pip,
    "pytest": _check_pytest,
    "bash": _check_bash,
    "sbatch": _check_sbatch,
    "jupyter": _check_jupyter,
}


@cache
def usage(words: tuple[str, ...]) -> str | None:
    """The usage lines of a verb or task; None if there is none."""
    said = StringIO()
    try:
        with redirect_stdout(said):
            parse([*words, "--help"])
    except UsageError:
        return None
    except SystemExit:
        return said.getvalue().partition("\n\n")[0]
    return None


@cache
def tasks(words: tuple[str, ...]) -> tuple[str, ...]:
    """The verbs, or the tasks of a verb; none where it has no tasks."""
    verbs = _parsers()[words].verbs if words in _parsers() else None
    return tuple(verbs.choices) if verbs else ()


@cache
def _parsers() -> dict[tuple[str, ...], Parser]:
    return dict(parsers())


def check_synopsis(text: str) -> None:
    """A synopsis: verbs, tasks and options exist; values and placeholders are not looked at.

    Several verbs or tasks may be named with commas: `prior-fast weights inspect, convert`.

    text: the words after the program.
    """
    paths: list[tuple[str, ...]] = [()]
    listed = False
    for word in text.replace("[", " ").replace("]", " ").split():
        name = word.rstrip(",")
        if name.startswith("--"):
            # Without its task, as in `evaluate TASK --data DIR`, an option is one of any task.
            deeper = [inner for path in paths for inner in [path, *((*path, task) for task in tasks(path))]]
            texts = "\n".join(usage(path) or "" for path in deeper)
            _check_options(texts, [name], f"prior-fast {' '.join(paths[-1])}")
        elif re.fullmatch(r"[a-z][\w-]*", name):
            paths = _deeper(paths, name, listed)
        listed = word.endswith(",")


def _deeper(paths: list[tuple[str, ...]], name: str, listed: bool) -> list[tuple[str, ...]]:
    """The verbs that are meant after another word: a task of the last one, or another one beside it.

    listed: a comma stands before the word.
    """
    last = paths[-1]
    if name in tasks(last):
        return [(*last, name)]
    if last and name in tasks(last[:-1]):
        return [*paths, (*last[:-1], name)]
    if tasks(last) or (listed and last):
        above = last if tasks(last) else last[:-1]
        raise Unknown(f"{' '.join(('prior-fast', *above))} has no {name!r}")
    return paths


def _check_options(help_text: str, words: Sequence[str], name: str) -> None:
    known = {"--help", *re.findall(r"(?<![\w-])--[a-z][\w-]*", help_text)}
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            raise Unknown(f"{name} has no option {option}")


def is_whole(text: str) -> bool:
    """Whether code between backticks is a whole command of prior-fast with options, and no synopsis."""
    words = text.split()
    return (
        words[:1] == ["prior-fast"] and any(word.startswith("--") for word in words) and not _PLACEHOLDER.search(text)
    )


def check_code(text: str) -> None:
    """Code between backticks, or a line of a block of text, that begins with a command: whole, or a synopsis."""
    words = text.split()
    if words[0] == "prior-fast":
        check_synopsis(" ".join(words[1:]))
        if is_whole(text):
            check_prior_fast(words[1:])
    elif words[0] == "make":
        _check_make([word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*|[A-Z]+=\d+", word)])
    elif words[0] == "bash" and len(words) > 1:
        _check_bash(words[1:])
    elif words[0] == "torchrun" and MAIN in words:
        check_synopsis(" ".join(words[words.index(MAIN) + 1 :]))
    elif words[0] in VERBS and any(word.startswith("--") for word in words):
        check_synopsis(text)
    elif words[:2] == ["pip", "install"]:
        _check_pip([word.strip("'\"") for word in words[1:]])
