"""A process that has imported everything, and forks a process for each command: importing takes seconds.

    python -P -m tests.torture.server MODULE:FUNCTION [MODULE ...]

It runs FUNCTION with the words of a command. Requests and answers are lines of JSON on its standard input and output.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def forked(request: dict[str, Any]) -> list[str] | None:
    """Fork. In the parent: tell the id of the new process. In the child: the command's words."""
    pid = os.fork()
    if pid:
        answer({"pid": pid})
        return None
    os.setsid()
    # A command ends with the server, also if that is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{request['said']}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["control"]:
        os.environ["TORTURE_CONTROL"] = request["control"]  # for the processes that it starts
        ctypes.CDLL(None).torture_open(os.fsencode(request["control"]))
    return request["words"]


def wait(pid: int, seconds: float) -> None:
    """Tell the exit code of a process, None if it still runs after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            answer({"code": os.waitstatus_to_exitcode(status)})
            return
        if time.monotonic() > until:
            answer({"code": None})
            return
        time.sleep(0.002)


def answer(values: dict[str, Any]) -> None:
    os.write(1, json.dumps(values).encode() + b"\n")


def serve() -> list[str] | None:
    """Handle requests. Returns the words of the command in a forked process, None at the end."""
    pending = b""
    while True:
        while b"\n" not in pending:
            part = os.read(0, 1 << 16)
            if not part:
                return None
            pending += part
        line, _, pending = pending.partition(b"\n")
        request = json.loads(line)
        if "words" in request:
            words = forked(request)
            if words is not None:
                return words
        else:
            wait(request["wait"], request["seconds"])


def run(main: Callable[[list[str]], int], words: list[str]) -> None:
    """End this process with the exit code of a command. Python's own end would take seconds with so many modules."""
    code = 1
    try:
        code = main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    for name in [module, *sys.argv[2:]]:
        importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.freeze()
    answer({"ready": True})
    command = serve()
    if command is not None:
        run(getattr(sys.modules[module], function), command)
