"""Kernels made for these tests, and processes in which Triton compiles; in pytest's own process it interprets."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MADE_UP = Path(__file__).resolve().parent / "made_up"


@pytest.fixture(scope="session")
def run_made_up() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of `made_up/` with arguments, in an environment that asks for Triton's interpreter."""

    def run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(MADE_UP / script), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})

    return run
