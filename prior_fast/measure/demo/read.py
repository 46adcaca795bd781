"""Reads the result files of the demo: those of `prior-fast evaluate` and that of `prior-fast bench ceiling`."""

import json
from pathlib import Path
from typing import Any

from prior_fast.errors import UsageError

Report = dict[str, Any]
CEILING = "ceiling"  # the kind of the file of `prior-fast bench ceiling`
TASKS = ("zero-shot", "retrieval", "generation", "bank")


def read_results(folder: Path) -> dict[str, Report]:
    """The metrics.json of each task, all of one checkpoint.

    Raises:
        UsageError: a file is missing or can't be read, or two are of different checkpoints.
    """
    reports = {task: _read_task(folder / task / "metrics.json", task) for task in TASKS}
    used = {task: (report["checkpoint"]["used"], report["checkpoint"]["preset"]) for task, report in reports.items()}
    first = TASKS[0]
    for task in TASKS[1:]:
        if used[task] != used[first]:
            raise UsageError(
                f"{folder}: {first} is of the checkpoint {' of preset '.join(used[first])}, and {task} of "
                f"{' of preset '.join(used[task])}: evaluate one checkpoint"
            )
    return reports


def read_ceiling(path: Path) -> Report:
    """The file of `prior-fast bench ceiling`.

    Raises:
        UsageError: it can't be read, or is another file.
    """
    command = f"prior-fast bench ceiling --data DATA --like RUN --out {path}"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--ceiling {path} is missing: make it with `{command}`, or leave --ceiling out") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--ceiling {path} can't be read ({error}): make it again with `{command}`") from None
    if not isinstance(report, dict) or report.get("kind") != CEILING:
        raise UsageError(f"--ceiling {path} is no file of `prior-fast bench ceiling`: make one with `{command}`")
    return report


def _read_task(path: Path, task: str) -> Report:
    command = f"prior-fast evaluate {task} --checkpoint RUN --data DATA --out {path.parent}"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["task"] != task:
            raise UsageError(f"{path} is a result of {report['task']}, not of {task}: make it with `{command}`")
        # Read here, so that a file without them is refused with its name.
        _ = report["checkpoint"]["used"], report["checkpoint"]["preset"], report["metrics"]
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: make it with `{command}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} can't be read as a result of {task} ({error!r}): make it with `{command}`") from None
    return report
