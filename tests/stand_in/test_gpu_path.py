"""The host's side of training on a GPU, run with a stand-in for CUDA if there is no GPU.

No kernel of PyTorch or Triton runs, so values are meaningless. The tests check that host and GPU tensors are not mixed,
that Triton accepts and compiles every call, that PyTorch's checks of shapes, devices and layouts pass, and that a step
does not wait.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stand_in.library import LIBRARY, Unbuildable, build, environment

ROOT = Path(__file__).resolve().parents[2]
START = "import sys, stand_in_here; from prior_fast.cli.main import main; sys.exit(main(sys.argv[1:]))"
PROBE = "import torch; x = torch.zeros(4, 4, device='cuda'); print((x @ x).cpu().shape, torch.cuda.get_device_name())"
NAME = "stand-in"  # not the name of a real GPU, so that no figure seems to be measured on one
OF_EVERY_STAGE = {"_sigmoid_attention_fwd_kernel", "_sigmoid_attention_bwd_kernel", "_info_nce_fwd_kernel"}
OF_LATER_STAGES = {"_prototype_lookup_fwd_kernel", "_prototype_kl_fwd_kernel", "_philox_uniform_kernel"}


@pytest.fixture(scope="module")
def gpu(shared_folder: Callable[[str, Callable[[Path], Any]], Path]) -> dict[str, str]:
    """The environment of a process with the stand-in."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    try:
        found = environment(shared_folder("stand-in", build) / LIBRARY) | {"STAND_IN_NAME": NAME}
    except Unbuildable as error:
        pytest.skip(f"no stand-in for CUDA: {error}")
    probe = run([sys.executable, "-c", PROBE], found)
    if probe.stdout != f"torch.Size([4, 4]) {NAME}\n":
        pytest.skip(f"this torch does not take the stand-in: {probe.stderr[-500:]}")
    return found


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_all_stages_train(gpu: dict[str, str], small_store: Path, tmp_path: Path) -> None:
    words = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(tmp_path / "run"), "device=cuda"]
    settings = ["compile=off", "precision=bf16", "batch_size=8", "stage_epochs=1,1,1", "log_every=1", "data.workers=0"]
    # By default the bank's ops would use PyTorch in float32.
    done = run([sys.executable, "-c", START, *words, *settings], gpu | {"PRIOR_FAST_BACKEND": "triton"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on 1 x cuda" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines if line["kind"] == "train"} == {1, 2, 3}
    launched = set(Path(gpu["STAND_IN_LAUNCHED"]).read_text().split())
    assert launched >= OF_EVERY_STAGE | OF_LATER_STAGES


def test_neither_a_step_nor_the_loader_waits(gpu: dict[str, str]) -> None:
    """PyTorch's sync debug mode watches one step of each stage."""
    words = ["-p", "no:xdist", "-p", "stand_in_here", "-m", "gpu and not compiles", "-vv"]
    done = run([sys.executable, "-m", "pytest", *words, "tests/training/test_no_syncs.py"], gpu)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.findall(r"::(test_\w+).* PASSED", done.stdout)
    assert len(set(passed)) == 4 and len(passed) > 25, passed


def test_attention_in_training_is_not_cudnns(gpu: dict[str, str]) -> None:
    """torch's default on Hopper is cuDNN (3); training uses flash (1), or memory-efficient (2) with a mask."""
    code = """
import stand_in_here, torch
from prior_fast.training.cudnn import cudnn_for_training
torch.backends.cudnn.enabled = True
query, key = (torch.zeros(4, 12, n, 64, device="cuda", dtype=torch.bfloat16) for n in (16, 49))
mask = torch.ones(4, 12, 16, 49, device="cuda", dtype=torch.bool)
choices = lambda: [torch._fused_sdp_choice(query, key, key, attn_mask=m) for m in (None, mask)]
print(choices())
with cudnn_for_training(True):
    print(choices())
"""
    assert run([sys.executable, "-c", code], gpu).stdout == "[3, 3]\n[1, 2]\n"


@pytest.mark.slow
def test_compiled_convolutions_take_tensors_as_they_lie(gpu: dict[str, str]) -> None:
    done = run([sys.executable, str(ROOT / "tests/stand_in/compiled_images.py")], gpu)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["convolutions"] == 2 * 7  # the last one is a matrix product
    assert found["scattered"] == 0
    assert found["copied"] == []


def test_a_wait_is_seen(gpu: dict[str, str]) -> None:
    code = "import torch; torch.cuda.set_sync_debug_mode('error'); torch.zeros(2, device='cuda').nonzero()"
    done = run([sys.executable, "-c", code], gpu)
    assert "called a synchronizing CUDA operation" in done.stderr
