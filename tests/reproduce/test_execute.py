"""Steps run once, in order, survive kills and failures, and never twice at the same time."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from prior_fast.errors import UsageError
from prior_fast.reproduce.execute import LOCK, check_plan, execute, only_one
from prior_fast.reproduce.steps import Step

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds; only a broken program waits so long


@dataclass(frozen=True)
class Script(Step):
    """A step that runs Python code in its folder."""

    code: str = ""

    def argv(self) -> list[str]:
        self.out.mkdir(parents=True, exist_ok=True)
        head = f"import os, pathlib, signal, sys, time; os.chdir({str(self.out)!r})\n"
        return [sys.executable, "-c", head + self.code]


def script(out: Path, name: str, code: str = "pathlib.Path('done').touch()", needs: tuple[str, ...] = ()) -> Script:
    return Script(name, ("evaluate", name), out / name, "done", needs, code=code)


def counted(extra: str = "") -> str:
    """Code that appends to `count`, and then writes the proof."""
    return f"open('count', 'a').write('x')\n{extra}\npathlib.Path('done').touch()"


def test_finished_steps_are_not_repeated(tmp_path: Path) -> None:
    steps = [script(tmp_path, name, counted()) for name in ("a", "b")]
    for _ in range(2):
        outcome = execute(steps)
        assert not outcome.failed and not outcome.left_out and not outcome.stopped
    assert [(tmp_path / name / "count").read_text() for name in ("a", "b")] == ["x", "x"]


def test_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    steps = [
        script(tmp_path, "broken", "sys.exit(3)"),
        script(tmp_path, "needs it", counted(), ("broken",)),
        script(tmp_path, "needs that", counted(), ("needs it",)),
        script(tmp_path, "apart", counted()),
        script(tmp_path, "silent", "pass"),
    ]
    outcome = execute(steps)
    assert outcome.failed == {"broken": 3, "silent": 0}  # one fails, one leaves no result
    assert outcome.left_out == ["needs it", "needs that"]
    assert (tmp_path / "apart" / "done").exists() and not (tmp_path / "needs that").exists()


@pytest.mark.parametrize("code", [75, -signal.SIGTERM])
def test_a_stop_signal_reaches_the_step_and_ends_the_run(code: int, tmp_path: Path) -> None:
    """The step sends the signal to its parent, which passes it on; the step ends by it or with exit code 75."""
    handler = "signal.signal(signal.SIGTERM, lambda *a: sys.exit(75))\n" if code == 75 else ""
    wait = "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)"
    outcome = execute([script(tmp_path, "first", handler + wait), script(tmp_path, "second", counted())])
    assert outcome.stopped and not outcome.failed
    assert not (tmp_path / "second").exists()


def test_ctrl_c_in_a_step_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute([script(tmp_path, "first", "sys.exit(130)"), script(tmp_path, "second", counted())])
    assert not (tmp_path / "second").exists()


# Two steps; the first waits for a file `go` that the test writes.
PROGRAM = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.reproduce.test_execute import counted, execute, only_one, script
    out = Path({out!r})
    wait = "while not pathlib.Path('../go').exists(): time.sleep(0.02)"
    with only_one(out) as lock:
        execute([script(out, "first", counted(wait)), script(out, "second", counted())], lock)
"""


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def start(out: Path) -> subprocess.Popen:
    program = textwrap.dedent(PROGRAM.format(root=str(ROOT), out=str(out)))
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_after_a_kill_the_next_run_waits_for_the_orphan_and_goes_on(tmp_path: Path) -> None:
    killed = start(tmp_path)
    eventually((tmp_path / "first" / "count").exists)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    again = start(tmp_path)
    assert again.stdout is not None
    assert "waiting for a command that still works in" in again.stdout.readline()
    (tmp_path / "go").touch()
    assert again.wait(PATIENCE) == 0
    assert "first: finished before" in again.stdout.read()
    # The orphan finished its step: it did not run twice.
    assert [(tmp_path / name / "count").read_text() for name in ("first", "second")] == ["x", "x"]


def test_the_lock_is_free_again_after_the_run(tmp_path: Path) -> None:
    for _ in range(2):
        with only_one(tmp_path) as lock:
            assert os.fstat(lock).st_ino == (tmp_path / LOCK).stat().st_ino


def test_a_folder_keeps_the_commands_that_it_was_begun_with(tmp_path: Path) -> None:
    first = {"a": Step("a", ("evaluate", "x", "epochs=1"), tmp_path, "done")}
    check_plan(tmp_path, first)
    check_plan(tmp_path, {"b": Step("b", ("evaluate", "y"), tmp_path, "done")})  # another table's steps are added
    assert set(json.loads((tmp_path / "plan.json").read_text())["steps"]) == {"a", "b"}
    other = {"a": Step("a", ("evaluate", "x", "epochs=2"), tmp_path, "done")}
    with pytest.raises(UsageError, match="its step a was made with epochs=1, not with epochs=2: name another --out"):
        check_plan(tmp_path, other)
    check_plan(tmp_path, first)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UsageError, match=r"plan.json can't be read"):
        check_plan(tmp_path, first)
