"""Choosing the fastest of several ways to compute the same on this machine, and remembering the choice.

A choice is measured once for a device and the versions of torch, Triton, cuDNN and prior-fast; each such combination
has a file in the user's cache folder. Deleting the file measures again.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from prior_fast.errors import RunError
from prior_fast.files import write_json
from prior_fast.hardware.versions import package_version
from prior_fast.version import __version__

Measure = Callable[[Callable[[], object]], float]
WARM_UP, TIMES = 3, 9  # calls before the timing: compilation, cuDNN's choice of algorithms; calls that are timed


def milliseconds(call: Callable[[], object]) -> float:
    """The median time of a call on the current GPU."""
    for _ in range(WARM_UP):
        call()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(TIMES)]
    for begin, end in events:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return median(begin.elapsed_time(end) for begin, end in events)


def cache_folder() -> Path:
    """The folder for files that can be made again: prior-fast in XDG_CACHE_HOME, or in ~/.cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification of XDG_CACHE_HOME says that relative paths are to be ignored.
    return (root if root.is_absolute() else Path.home() / ".cache") / "prior-fast"


class Choices:
    """The choices of one device and one set of versions, in a JSON file: key -> choice and measured times.

    Several processes may use the file at once: it is replaced as a whole, and a choice that two of them make at the
    same time is measured twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: dict[str, dict[str, Any]] = _read(path)

    @classmethod
    def of(cls, device: torch.device) -> "Choices":
        """The choices of a GPU, in the user's cache folder."""
        versions = {"torch": torch.__version__, "triton": package_version("triton")}
        versions |= {"cudnn": str(torch.backends.cudnn.version()), "prior-fast": __version__}
        words = [torch.cuda.get_device_name(device), *(f"{name}-{text}" for name, text in versions.items())]
        return cls(cache_folder() / "choices" / f"{re.sub(r'[^A-Za-z0-9_.+-]+', '-', '_'.join(words))}.json")

    def choose(self, key: str, candidates: Mapping[str, Callable[[], object]], measure: Measure = milliseconds) -> str:
        """The name of the candidate with the least time, measured or remembered.

        A candidate that raises an error is left out, with a warning. Such a choice is not written to the file, since
        the reason may be a passing one, such as a lack of memory.

        Args:
            key: what is chosen, with all sizes that the times depend on.
            candidates: functions that compute the same; of equal times the first one wins.
            measure: calls its argument and returns a time.

        Raises:
            RunError: all candidates raise errors.
        """
        known = self.made.get(key, {}).get("choice")
        if isinstance(known, str) and known in candidates:
            return known
        times: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name, call in candidates.items():
            try:
                times[name] = measure(call)
            except Exception as error:  # a compiler or a library may fail in any way, and another candidate serves
                lines = str(error).strip().splitlines()
                reasons[name] = f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
        if not times:
            raise RunError(f"{key}: no candidate works: {'; '.join(f'{n}: {r}' for n, r in reasons.items())}")
        for name, reason in reasons.items():
            warnings.warn(f"{key}: {name} is left out: {reason}", RuntimeWarning, stacklevel=2)
        choice = min(times, key=lambda name: times[name])
        self.made[key] = {"choice": choice, "times": times}
        if not reasons:
            self._write()
        return choice

    def _write(self) -> None:
        # Choices that another process has written since.
        self.made = {**_read(self.path), **self.made}
        try:
            write_json(self.path, self.made)
        except (OSError, RunError, ValueError) as error:
            warnings.warn(
                f"{self.path} can't be written, so choices are not kept: {error}", RuntimeWarning, stacklevel=3
            )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The choices in a file; none, with a warning, if it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
            raise ValueError("it holds no choices")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} can't be read and is made again: {error}", RuntimeWarning, stacklevel=3)
        return {}
    return found
