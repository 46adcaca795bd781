"""Runs commands of prior-fast, each once: a series that was stopped goes on where it stopped."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prior_fast.bench.demo.prompts import path_of
from prior_fast.files import write_json

EVALUATIONS = ("zero-shot", "retrieval", "generation", "bank")
DONE = "commands.json"


@dataclass(frozen=True)
class Command:
    """A command of prior-fast.

    Attributes:
        words: what follows `prior-fast`.
        makes: the folder or file that it makes.
    """

    name: str
    words: tuple[str, ...]
    makes: Path


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The key=value words, and the others."""
    settings = [word for word in words if "=" in word and not word.startswith("-")]
    return settings, [word for word in words if word not in settings]


def evaluations(folder: Path, data: Path, words: Sequence[str] = ()) -> list[Command]:
    """The evaluations of the run `folder`/run on a prepared dataset; words: settings of zero-shot and retrieval.

    `write_prompts` writes the prompts that they read.
    """
    settings = {"zero-shot": (f"prompts={path_of(folder)}",), "generation": ("studies=200",)}
    return [
        Command(
            f"evaluate {task}",
            (
                *("evaluate", task, "--checkpoint", str(folder / "run"), "--data", str(data)),
                *("--out", str(folder / task), *settings.get(task, ()), *(words if task in EVALUATIONS[:2] else ())),
            ),
            folder / task,
        )
        for task in EVALUATIONS
    ]


def measurements(folder: Path, data: Path) -> list[Command]:
    """The evaluations of the run `folder`/run on a prepared dataset, and its pictures."""
    out = folder / "pictures"
    where = ("--checkpoint", str(folder / "run"), "--data", str(data), "--out", str(out))
    return [*evaluations(folder, data), Command("pictures", ("pictures", *where, f"prompts={path_of(folder)}"), out)]


def run_commands(
    folder: Path, commands: Sequence[Command], run: Callable[[Path, Command], int] | None = None
) -> dict[str, float]:
    """Run the commands that `folder`/commands.json does not have as finished, with the seconds that each took.

    If the words of a command have changed, it and those after it run again. What a command makes is removed before.

    run: gets the folder and the command, returns the exit code; by default a process whose output is in
        `folder`/NAME.log.

    Raises:
        SystemExit: a command failed; names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _finished(folder, commands)
    for command in commands[len(done) :]:
        if command.makes.is_dir():
            shutil.rmtree(command.makes)
        else:
            command.makes.unlink(missing_ok=True)
        started = time.perf_counter()
        code = (run or run_process)(folder, command)
        if code:
            raise SystemExit(f"prior-fast {command.name} failed with exit code {code}: see {log_of(folder, command)}")
        seconds = round(time.perf_counter() - started, 1)
        done.append({"name": command.name, "words": list(command.words), "seconds": seconds})
        write_json(folder / DONE, done)
        print(f"{folder.name}: {command.name}: {seconds:.0f} s", flush=True)
    return {entry["name"]: entry["seconds"] for entry in done}


def run_process(folder: Path, command: Command) -> int:
    """Run a command in a process of its own; the exit code."""
    with log_of(folder, command).open("w", encoding="utf-8") as log:
        words = [sys.executable, "-m", "prior_fast.cli.main", *command.words]
        return subprocess.run(words, stdout=log, stderr=subprocess.STDOUT).returncode


def log_of(folder: Path, command: Command) -> Path:
    """The file that has the command's output."""
    return folder / f"{command.name.replace(' ', '-')}.log"


def _finished(folder: Path, commands: Sequence[Command]) -> list[dict[str, Any]]:
    """The commands at the start of the list that are finished as they are now."""
    path = folder / DONE
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    kept = []
    for entry, command in zip(saved, commands):
        if (entry["name"], entry["words"]) != (command.name, list(command.words)) or not command.makes.exists():
            break
        kept.append(entry)
    return kept
