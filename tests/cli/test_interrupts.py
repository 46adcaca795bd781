"""Ctrl-C in real processes: one line, the exit code 130, and no traceback however often it comes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

# The command waits where the test wants it, after it has said so.
WAITS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background of a shell ignore it
from prior_fast.cli import main as command, doctor

def wait(*given):
    try:
        print("there", flush=True)
        time.sleep(100)
    finally:
        {afterwards}
    return 0

class Late:
    def __del__(self):
        print("late", flush=True)
        time.sleep({late})

sys.argv = ["prior-fast", "doctor"]
doctor.run = wait
code = command.main()
late = Late()
sys.exit(code)
"""


@pytest.fixture
def start() -> Callable[..., subprocess.Popen]:
    def started(afterwards: str = "pass", late: float = 0) -> subprocess.Popen:
        code = WAITS.format(afterwards=afterwards, late=late)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", code], **pipes)  # type: ignore[call-overload]
        assert process.stdout.readline() == "there\n"
        return process

    return started


def test_the_first_one_interrupts(start: Callable[..., subprocess.Popen]) -> None:
    process = start()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "prior-fast: interrupted\n" and out == "late\n"


def test_the_second_one_is_answered_and_the_third_ends_at_once(start: Callable[..., subprocess.Popen]) -> None:
    process = start("print('cleans', flush=True); time.sleep(100)")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleans\n"
    process.send_signal(signal.SIGINT)
    assert (
        "prior-fast: stopping; press Ctrl-C again to end at once"
        in (process.stderr.readline(), process.stderr.readline())[1]
    )
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err


def test_one_at_pythons_own_end_shows_no_traceback(start: Callable[..., subprocess.Popen]) -> None:
    process = start(late=100)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "late\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # Python itself may have put the system's handler back, by which the signal ends the process.
    assert process.returncode in (130, -signal.SIGINT) and err == "prior-fast: interrupted\n"


def test_a_program_that_ignores_it_goes_on_to_do_so() -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "from prior_fast.cli.interrupts import end_at_interrupt, end_by_interrupts; "
        "end_by_interrupts(); end_at_interrupt(3); os.kill(os.getpid(), signal.SIGINT); print('on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "on\n" and done.stderr == ""


def test_nobody_reads_the_output() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "prior_fast.cli.main", "--version"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert "Traceback" not in done.stderr
