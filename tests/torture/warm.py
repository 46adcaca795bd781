"""Running commands in processes that a warm server forks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.torture.faults.library import Fault, control

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = "prior_fast.cli.main:main"
# What the commands import when they are used.
PRELOAD = (
    *("prior_fast.phantom.generate", "prior_fast.phantom.layouts.labelled", "prior_fast.training.pretrain"),
    *("prior_fast.prepare.studies.pipeline", "prior_fast.prepare.studies.layouts.table"),
    *("prior_fast.prepare.studies.layouts.mimic", "prior_fast.prepare.labelled.pipeline"),
    *("prior_fast.prepare.labelled.layouts.labels", "prior_fast.prepare.labelled.layouts.rsna"),
    *("prior_fast.prepare.labelled.layouts.siim", "prior_fast.evaluation.evaluate", "prior_fast.evaluation.learned"),
    *("prior_fast.downstream.command", "prior_fast.downstream.tasks.classification", "prior_fast.pictures.make"),
    *("prior_fast.weights.convert", "prior_fast.weights.export", "prior_fast.weights.own"),
    *("prior_fast.radiology.dicom", "prior_fast.radiology.pillow_images", "sklearn.manifold"),
    *("matplotlib.pyplot", "tensorboard.summary.writer.event_file_writer"),
    *("transformers.models.bert.modeling_bert", "torchvision.models", "scipy.optimize"),
)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
GUARD = 180.0  # seconds after which a command hangs


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        code: its exit code, minus the number of a signal; None if it did not end in time.
        operations: how many it did.
        bytes: how many it wrote.
        fired: whether the fault has happened.
    """

    code: int | None
    stdout: str
    stderr: str
    operations: int = 0
    bytes: int = 0
    fired: bool = False


class Warm:
    """A server, and the folder where it keeps what its processes print.

    Args:
        library: what build() of tests/torture/faults/library.py made.
        main: the function that runs a command's words.
    """

    def __init__(self, library: Path, scratch: Path, main: str = PRODUCT, preload: Sequence[str] = PRELOAD) -> None:
        self.scratch, self._runs = scratch, 0
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, **ENVIRONMENT, "LD_PRELOAD": str(library), "PYTHONPATH": path}
        words = [sys.executable, "-P", "-m", "tests.torture.server", main, *preload]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._server = subprocess.Popen(words, env=environment, cwd=scratch, text=True, bufsize=1, **pipes)  # type: ignore[call-overload]
        self._answer()

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def start(self, words: Sequence[str], folder: Path, control_file: Path | None = None, **environment: str) -> "Run":
        """Start a command in `folder`."""
        self._runs += 1
        said = self.scratch / f"said-{self._runs}"
        said.mkdir()
        request = {"words": list(words), "folder": str(folder), "said": str(said), "environment": environment}
        answer = self._ask({**request, "control": control_file and str(control_file)})
        return Run(self, answer["pid"], said)

    def run(
        self,
        words: Sequence[str],
        root: Path,
        fault: Fault = Fault(),  # noqa: B008
        log: Path | None = None,
        seconds: float = GUARD,
    ) -> Outcome:
        """Run a command to its end, with a fault among its operations under `root`."""
        if log is not None:
            log.unlink(missing_ok=True)
        with control(self.scratch / "control", root, fault, log) as shared:
            run = self.start(words, root, shared.path)
            code = run.wait(seconds)
            if code is None:
                run.kill()
            found = run.outcome(code)
            return Outcome(found.code, found.stdout, found.stderr, shared.count, shared.bytes, shared.fired)

    def _ask(self, request: dict) -> dict:
        self._server.stdin.write(json.dumps(request) + "\n")
        return self._answer()

    def _answer(self) -> dict:
        line = self._server.stdout.readline()
        assert line, "the server has ended"
        return json.loads(line)


class Run:
    """A process of the server; it leads a session."""

    def __init__(self, warm: Warm, pid: int, said: Path) -> None:
        self.warm, self.pid, self.said = warm, pid, said

    def wait(self, seconds: float = GUARD) -> int | None:
        """The exit code; None if it still runs after `seconds`. What it has started is ended with it."""
        code = self.warm._ask({"wait": self.pid, "seconds": seconds})["code"]
        if code is not None:
            self._end_group()
        return code

    def kill(self) -> None:
        self._end_group()
        self.warm._ask({"wait": self.pid, "seconds": GUARD})

    def outcome(self, code: int | None) -> Outcome:
        """How it ended, after `wait`; removes what it printed."""
        texts = []
        for name in ("stdout", "stderr"):
            path = self.said / name
            texts.append(path.read_text(errors="replace") if path.exists() else "")
            path.unlink(missing_ok=True)
        self.said.rmdir()
        return Outcome(code, *texts)

    def _end_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            for _ in range(1000):
                os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.001)
