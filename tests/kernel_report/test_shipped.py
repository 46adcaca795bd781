"""Every kernel that ships, compiled for both architectures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prior_fast.hardware.chips import CHIPS
from prior_fast.kernel_report.collect import op_names

# Takes minutes on two cores, unless Triton's cache has the kernels.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped(shared_folder: Callable[[str, Callable[[Path], Any]], Path]) -> dict[str, Any]:
    """The report on all ops; the command's exit code shows whether it found a problem."""

    def make(out: Path) -> None:
        words = [sys.executable, "-m", "prior_fast.cli.main", "kernels", "report", "--out", str(out)]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr

    return json.loads((shared_folder("kernel-report", make) / "report.json").read_text())


def test_every_op_is_compiled_for_both_architectures_in_all_dtypes(shipped: dict[str, Any]) -> None:
    for op in op_names():
        rows = [row for row in shipped["kernels"] if row["op"] == op]
        assert {row["arch"] for row in rows} == {"sm_80", "sm_90"}
        assert {dtype for row in rows for dtype in row["dtypes"]} == {"bfloat16", "float16", "float32"}


def test_nothing_spills_and_all_fits(shipped: dict[str, Any]) -> None:
    for row in shipped["kernels"]:
        assert row["problem"] is None and row["spills"] == 0, row
        assert row["shared_bytes"] <= CHIPS[row["arch"]].shared_block, row
        assert row["blocks_per_multiprocessor"] >= 1, row


def test_products_of_16_bit_floats_are_on_tensor_cores(shipped: dict[str, Any]) -> None:
    rows = [row for row in shipped["kernels"] if row["dots"]]
    for row in rows:
        if {"*bf16", "*fp16"} & set(row["arguments"].values()):
            assert sum(row["tensor_core"].values()) > 0, row


def test_limits_are_told_for_both_chips(shipped: dict[str, Any]) -> None:
    assert {limit["op"] for limit in shipped["limits"]} == set(op_names())
    for limit in shipped["limits"]:
        assert set(limit["chips"]) == {"A100-80", "H200"} and limit["bytes"] > 0 and limit["launches"] > 0, limit
        assert limit["chips"]["H200"]["seconds"] < limit["chips"]["A100-80"]["seconds"]
