"""Progress where standard error is no terminal: when a line is written, what it says, and that it never harms."""

import io
import os
import re
import signal
import subprocess
import sys
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prior_fast import console
from prior_fast.console import log
from prior_fast.console.log import GAPS, LogBar, duration


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def without_a_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread never looks at the clock: the tests do, by `tick`."""
    monkeypatch.setattr(log, "BEAT", 1e6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bar(clock: Clock) -> LogBar:
    return LogBar(Console(file=io.StringIO()), ["losses"], clock)


def lines(bar: LogBar) -> list[str]:
    return bar.console.file.getvalue().splitlines()


def wait(bar: LogBar, clock: Clock, seconds: int) -> None:
    """Let seconds pass in which nothing advances."""
    for _ in range(seconds):
        clock.now += 1
        bar.tick()


def test_a_line_has_the_task_the_time_and_the_fields(bar: LogBar, clock: Clock) -> None:
    with bar:
        task = bar.add_task("stage 1", total=2000, losses="")
        for step in range(120):
            clock.now += 10 / 119 if step else 190
            bar.update(task, completed=step + 1, losses=f"loss {step / 100:.2f} 9 pairs/s")
    # The first step came after 190 s, 119 more in 10 s.
    assert lines(bar) == [
        "stage 1: 1/2000, 0 %, 3:10, 105:30:10 left, loss 0.00 9 pairs/s",
        "stage 1: 120/2000, 6 %, 3:20, loss 1.19 9 pairs/s",
    ]
    assert duration(59.9) == "0:59" and duration(3600) == "1:00:00"


def test_the_rest_is_told_by_the_speed_after_the_first_step(bar: LogBar, clock: Clock) -> None:
    with bar:
        task = bar.add_task("stage 1", total=100)
        clock.now += 9  # loads and compiles
        bar.advance(task, 10)
        clock.now += 1
        bar.advance(task, 10)
        assert lines(bar) == ["stage 1: 20/100, 20 %, 0:10, 0:08 left"]


def test_what_was_done_before_tells_nothing_of_the_speed(bar: LogBar, clock: Clock) -> None:
    with bar:
        task = bar.add_task("stage 1", total=100, completed=90)
        clock.now += 10
        bar.advance(task, 1)
        assert lines(bar) == ["stage 1: 91/100, 91 %, 0:10, 1:30 left"]


def test_lines_become_rarer(bar: LogBar, clock: Clock) -> None:
    with bar:
        bar.add_task("stage 1", total=100)
        times = []
        for second in range(7200):
            before = len(lines(bar))
            wait(bar, clock, 1)
            if len(lines(bar)) > before:
                times.append(second + 1)
    assert times[:7] == [10, 30, 60, 120, 240, 540, 1140]
    assert {later - earlier for earlier, later in pairwise(times[6:])} == {600}


def test_a_command_of_seconds_writes_nothing(bar: LogBar, clock: Clock) -> None:
    with bar:
        for name in ("prompts", "images"):
            task = bar.add_task(name, total=4)
            for _ in range(4):
                clock.now += 1
                bar.advance(task)
    assert not lines(bar)


def test_short_tasks_one_after_the_other_are_not_silent(bar: LogBar, clock: Clock) -> None:
    with bar:
        for number in range(20):
            task = bar.add_task(f"part {number}", total=5)
            for _ in range(5):
                clock.now += 1
                bar.advance(task)
    assert 3 <= len(lines(bar)) <= 8


def test_the_end_of_a_task_is_told_if_the_task_was_shown(bar: LogBar, clock: Clock) -> None:
    with bar:
        task = bar.add_task("images", total=3)
        for _ in range(3):
            clock.now += 7
            bar.advance(task)
        assert lines(bar) == ["images: 2/3, 66 %, 0:14, 0:07 left", "images: 3/3, 100 %, 0:21"]
    assert len(lines(bar)) == 2


def test_work_after_the_last_task_is_told(bar: LogBar, clock: Clock) -> None:
    with bar:
        bar.advance(bar.add_task("writing", total=1))
        wait(bar, clock, 12)
        bar.add_task("next", total=2)
        wait(bar, clock, 3)
        assert lines(bar) == ["after writing, 0:10"]


def test_what_a_command_is_busy_with_is_told(bar: LogBar, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "progress", lambda *fields: bar)
    with bar:
        task = bar.add_task("stage 1", total=10)
        with console.busy("compiling stage 1"):
            wait(bar, clock, 155)
        bar.advance(task)
        wait(bar, clock, 200)
    assert lines(bar)[:5] == [
        *(f"compiling stage 1, {time}" for time in ("0:10", "0:30", "1:00", "2:00")),
        "compiling stage 1, 2:35, done",
    ]
    assert lines(bar)[5].startswith("stage 1: 1/10, 10 %, 2:45, 24:45 left")
    # Without a bar that runs it has its own.
    bar = LogBar(bar.console, clock=clock)
    with console.busy("checking images.npy", total=19) as advance:
        clock.now += 20
        advance(2)
    assert lines(bar)[-2:] == ["checking images.npy: 2/19, 10 %, 0:20, 2:50 left",
                               "checking images.npy: 2/19, 10 %, 0:20"]  # fmt: skip


def test_a_bar_in_a_bar_speaks_alone(bar: LogBar, clock: Clock) -> None:
    inner = LogBar(Console(file=io.StringIO()), clock=clock)
    with bar:
        bar.add_task("outer", total=2)
        with inner:
            inner.add_task("inner", total=None)
            clock.now += 10
            bar.tick()
            inner.tick()
        assert not lines(bar) and lines(inner) == ["inner, 0:10", "inner, 0:10, done"]
        bar.tick()
        assert len(lines(bar)) == 1


def test_one_row_for_several_works_begins_anew(bar: LogBar, clock: Clock) -> None:
    with bar:
        task = bar.add_task("tokenizing", total=None)
        clock.now += 40
        bar.advance(task, 5)
        bar.update(task, description="writing", total=4, completed=0)
        clock.now += 20
        bar.advance(task)
    assert lines(bar) == ["tokenizing: 5, 0:40", "writing: 1/4, 25 %, 0:20, 1:00 left", "writing: 1/4, 25 %, 0:20"]


def test_nothing_is_written_after_the_end(bar: LogBar, clock: Clock) -> None:
    with bar:
        task = bar.add_task("images", total=9)
    clock.now += 1000
    bar.tick()
    bar.advance(task, 9)
    bar.remove_task(task)
    bar.stop()
    assert not lines(bar)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "advance", "update", "remove", "tick"]),
            st.integers(0, 5),
            st.floats(0, 1000),
            st.text(max_size=9),
        ),
        max_size=40,
    )
)
def test_any_order_of_calls_gives_few_plain_lines(calls: list[tuple[str, int, float, str]]) -> None:
    clock = Clock()
    bar = LogBar(Console(file=io.StringIO()), ["losses"], clock)
    begun, tasks = clock.now, []
    with bar:
        for what, number, seconds, text in calls:
            clock.now += seconds
            if what == "add":
                tasks.append(bar.add_task(text, total=[None, 0, 1, 7.5, 100, 10**12][number], losses=text))
            elif what == "tick":
                bar.tick()
            elif tasks and what == "remove":
                bar.remove_task(tasks.pop(number % len(tasks)))
            elif tasks and what == "advance":
                bar.advance(tasks[number % len(tasks)], seconds)
            elif tasks:
                bar.update(tasks[number % len(tasks)], description=text, completed=seconds, losses=text)
    written = bar.console.file.getvalue()
    assert re.fullmatch(r"([ -~]*\n)*", written)
    # A line each 10 s at most, and as many at the ends of tasks.
    assert written.count("\n") <= 2 * ((clock.now - begun) // GAPS[0])


def test_the_thread_writes_while_nothing_advances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "BEAT", 0.001)
    file, seconds = io.StringIO(), count(step=5)
    with LogBar(Console(file=file), clock=lambda: float(next(seconds))) as bar:
        bar.add_task("compiling", total=None)
        while file.getvalue().count("\n") < 3:
            pass
    assert file.getvalue().startswith("compiling, ")


def test_a_forked_process_writes_nothing_and_waits_for_no_lock(bar: LogBar, clock: Clock) -> None:
    with bar:
        task = bar.add_task("images", total=9)
        clock.now += 100
        with bar._turn:  # as if the thread wrote while the process is forked
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                bar.advance(task, 9)
                bar.tick()
                bar.stop()
                with console.busy("child"):
                    pass
                os._exit(len(bar.console.file.getvalue()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SCRIPT = """
import itertools, sys
from prior_fast.console import log, stderr, stdout
seconds = itertools.count(step=5)
with log.LogBar(stderr, clock=lambda: float(next(seconds))) as bar:
    task = bar.add_task("images", total=300)
    for _ in range(300):
        bar.advance(task)
    stderr.print("a note")
    stderr.print("another note")
stdout.print("finished")
"""


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "2> >(exec 0<&-)", "2> >(exec 0<&-; cat >/dev/null)"])
def test_a_log_that_can_not_be_written_ends_no_work(closed: str) -> None:
    words = f'{sys.executable} -c "$SCRIPT" {closed}'
    if "full" in closed:  # the notes are not written by the progress, and a full disk is an error of theirs
        words = words.replace("$SCRIPT", '$(echo "$SCRIPT" | grep -v note)')
    done = subprocess.run(
        ["bash", "-c", words], env={**os.environ, "SCRIPT": SCRIPT}, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "finished\n")


def test_a_file_gets_plain_lines(tmp_path) -> None:
    with (tmp_path / "log").open("w") as file:
        subprocess.run([sys.executable, "-c", SCRIPT], stderr=file, stdout=subprocess.DEVNULL, check=True, timeout=120)
    written = (tmp_path / "log").read_text()
    assert re.match(r"images: \d+/300, \d+ %, \d+:\d\d(, \d+:\d\d(:\d\d)? left)?\n", written)
    assert written.endswith("another note\n") and not re.search(r"[\r\x1b]", written)
