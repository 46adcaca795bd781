"""The files that a finished split leaves: result.json, which later runs read, and log.jsonl."""

import json
from pathlib import Path
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.files.sealed import read_sealed

RESULT_FILE, LOG_FILE = "result.json", "log.jsonl"
# The entries of result.json and of a line of log.jsonl, and their types.
RESULT = {"split": str, "images": dict, "validate": dict, "test": dict, "undefined": dict, "notes": list, "steps": int}
LINE: dict[str, Any] = {"epoch": int, "step": int, "loss": (int, float), "validate": dict, "best": bool}


def read_result(folder: Path, selects: str) -> dict[str, Any]:
    """The result of a finished split.

    selects: the metric that chose its weights.

    Raises:
        UsageError: it is damaged.
    """
    path = folder / RESULT_FILE
    try:
        result = read_sealed(path)
        for name, kind in RESULT.items():
            if not isinstance(result.get(name), kind):
                raise ValueError(f"it has no valid {name!r}")
        if "log" not in result:  # a result of version 0.1
            result["log"] = read_log(folder / LOG_FILE)
        check_history(result["log"], LOG_FILE)
        if not all(selects in line["validate"] for line in result["log"]):
            raise ValueError(f"{LOG_FILE} has no {selects!r}")
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} can't be read ({error}): remove {folder} to train this split again") from None
    return result


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a split's log.jsonl.

    Raises:
        ValueError: a line is no JSON.
        OSError: it can't be read.
    """
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_history(history: Any, where: str) -> None:
    """Refuse lines of log.jsonl that lack an entry.

    where: the file that they are from, for the message.

    Raises:
        ValueError: a line is none.
    """
    if not isinstance(history, list):
        raise ValueError(f"{where} holds no list of lines")
    for number, line in enumerate(history, 1):
        for name, kind in LINE.items():
            if not isinstance(line, dict) or not isinstance(line.get(name), kind):
                raise ValueError(f"line {number} of {where} has no valid {name!r}")
    if history and not any(line["best"] for line in history):
        raise ValueError(f"{where} names no best epoch")
