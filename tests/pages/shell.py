"""The commands of a shell block, as bash itself would call them: words expanded, loops gone through, nothing run."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.pages.blocks import Block

# These run other commands. Their stand-ins call the rest of their words, so the inner command is noted alone.
_WRAPPERS = {
    "timeout": 'shift; exec "$@"',
    "nice": 'while [ "${1#-}" != "$1" ]; do shift 2; done; exec "$@"',
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
}
# `exec NAME`, `timeout 9 NAME` and pipes of subshells want files; other names reach command_not_found_handle.
_FILES = ("prior-fast", "torchrun", "python")
_NOTE = 'printf "%s\\0" "$#" "${0##*/}" "$@" >> "$PAGES_LOG"'
# A shell with -c has commands of its own.
_BASH = f'if [ "${{1-}}" = -c ]; then exec {shutil.which("bash")} "$@"; fi\n{_NOTE}'
_BEFORE = """
command_not_found_handle() { printf '%s\\0' "$(($# - 1))" "$@" >> "$PAGES_LOG"; }
export -f command_not_found_handle
cd() { builtin cd "$1" 2> /dev/null || true; }
source() { printf '%s\\0' "$#" source "$@" >> "$PAGES_LOG"; }
"""
# What the scripts of a batch system find.
_VARIABLES = {
    **{"SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node"},
    **{"SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
}


@dataclass(frozen=True)
class Command:
    """A command that a block calls: its block and its words, of which the first is the program."""

    block: Block
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


def commands(block: Block, folder: Path) -> list[Command]:
    """The commands that the block calls, in their order.

    The programs are stand-ins that note their words, print nothing and succeed.

    Args:
        folder: an empty folder, in which the block runs.

    Raises:
        AssertionError: bash finds a syntax error, or complains about something else.
    """
    bash = shutil.which("bash")
    assert bash is not None
    checked = subprocess.run([bash, "-n"], input=block.text, capture_output=True, text=True)
    assert checked.returncode == 0, f"{block.place}: {checked.stderr}"
    programs, log = folder / "programs", folder / "log"
    _write_programs(programs, bash)
    log.touch()
    environment = {"PATH": str(programs), "PAGES_LOG": str(log), "HOME": str(folder), **_VARIABLES}
    work = folder / "work"
    work.mkdir()
    script = f"{_BEFORE}\n{block.text}\nwait"
    done = subprocess.run([bash, "-c", script], env=environment, cwd=work, capture_output=True, text=True, timeout=60)
    # A redirection to nowhere, for example, would hide its command.
    assert not done.stderr, f"{block.place}: {done.stderr}"
    return [Command(block, words) for words in _noted(log.read_bytes())]


def _write_programs(folder: Path, bash: str) -> None:
    folder.mkdir()
    texts = {**dict.fromkeys(_FILES, _NOTE), **_WRAPPERS, "bash": _BASH}
    for name, text in texts.items():
        (folder / name).write_text(f"#!{bash}\n{text}\n", encoding="utf-8")
        (folder / name).chmod(0o755)


def _noted(log: bytes) -> list[tuple[str, ...]]:
    words = os.fsdecode(log).split("\0")[:-1]
    found = []
    while words:
        count = int(words.pop(0)) + 1
        found.append(tuple(words[:count]))
        del words[:count]
    return found
