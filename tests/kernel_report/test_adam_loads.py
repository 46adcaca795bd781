"""How the optimizer's kernels move memory, in the code that they compile to."""

import json
import subprocess
from collections.abc import Callable

import pytest

# Of the loop over whole pieces: parameter and moments, read and written, and in float32 the gradient.
WIDE = {
    ("_adam_kernel", "fp32"): 7,
    ("_adam_kernel", "bf16"): 6,
    ("_square_sums_kernel", "fp32"): 2,
    ("_square_sums_kernel", "bf16"): 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_threads_move_16_bytes_and_copies_are_rounded(
    arch: str, run_made_up: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run_made_up("adam_loads.py", arch)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(row["kernel"], row["dtype"]) for row in rows} > WIDE.keys()
    for row in rows:
        kind = row["kernel"], row["dtype"]
        if kind in WIDE:
            assert row["widths"]["128"] == WIDE[kind], row
        if kind == ("_adam_kernel", "bf16"):
            assert row["widths"]["64"] >= 2 and row["rounded"] > 0, row  # the gradient and the copy
