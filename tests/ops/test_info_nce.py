import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from prior_fast import ops

ROOT = Path(__file__).resolve().parents[2]
RANKS = 2


def naive(a, b, scale):
    logits, labels = scale * a @ b.T, torch.arange(len(a))
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def test_golden_global_alignment(golden_file, gradients):
    file = golden_file("global_alignment")
    leaves = [file.leaf(name) for name in ("image", "text", "logit_scale")]
    image, text, scale = leaves
    loss = ops.info_nce(normalize(image, dim=1), normalize(text, dim=1), scale.exp())
    file.check_scalar(loss, "loss")
    for gradient, name in zip(gradients(loss, leaves), ("image", "text", "logit_scale"), strict=True):
        file.check(gradient.reshape(file[f"g.{name}"].shape), f"g.{name}")


@pytest.mark.parametrize(("n", "d"), [(2, 1), (1, 5), (13, 7)])
def test_shapes(n, d, randn, check_equal):
    check_equal(ops.info_nce, naive, randn(n, d), randn(n, d), randn())


def test_scale_may_be_a_number(randn):
    a, b = randn(4, 3), randn(4, 3)
    torch.testing.assert_close(ops.info_nce(a, b, 5), naive(a, b, 5))


def test_one_pair_is_exactly_zero(randn, gradients):
    leaves = [randn(1, 5), randn(1, 5), randn()]
    loss = ops.info_nce(*leaves)
    assert loss.item() == 0 and all(not g.any() for g in gradients(loss, leaves))


def test_no_pair():
    assert ops.info_nce(torch.zeros(0, 3), torch.zeros(0, 3), 1.0).item() == 0


def test_large_logits_stay_finite(gradients):
    a = torch.eye(3, requires_grad=True)
    loss = ops.info_nce(a, torch.eye(3).roll(1, 0), 1e4)
    assert loss.item() == pytest.approx(1e4) and gradients(loss, [a])[0].isfinite().all()


def test_non_contiguous(randn, check_equal):
    check_equal(
        lambda a, b: ops.info_nce(a.T, b[::2], 2.0), lambda a, b: naive(a.T, b[::2], 2.0), randn(3, 5), randn(10, 3)
    )


def test_precision(randn, check_precision):
    a, b = (normalize(randn(24, 16), dim=1) for _ in range(2))
    check_precision(lambda a, b: ops.info_nce(a, b, 14.0), lambda a, b: naive(a, b, 14.0), a, b)


def test_float32_scale_with_bfloat16_vectors(randn, gradients):
    a, b, scale = randn(4, 3).bfloat16(), randn(4, 3).bfloat16(), torch.tensor(3.0, requires_grad=True)
    loss = ops.info_nce(a, b, scale)
    (gradient,) = gradients(loss, [scale])
    assert loss.dtype == gradient.dtype == torch.float32 and gradient.item() != 0


def test_gradcheck(randn):
    assert torch.autograd.gradcheck(ops.info_nce, (randn(4, 2), randn(4, 2), randn()))


def test_compiles_to_one_graph(randn, check_compiled):
    check_compiled(ops.info_nce, *((randn(n, 4), randn(n, 4), randn()) for n in (5, 8)))


def test_reads_nothing_back(randn, no_host_read):
    leaves = [randn(5, 3), randn(5, 3), randn()]
    with no_host_read:
        ops.info_nce(*leaves).backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": torch.zeros(3)}, r"a has shape \[3\], wanted \[B, D\], 2 dimensions"),
        ({"b": torch.zeros(1, 4)}, r"b has shape \[1, 4\], wanted \[B, D\] with B = 3 as in a"),
        ({"logit_scale": torch.ones(1)}, r"logit_scale has shape \[1\], wanted a tensor without dimensions"),
        ({"logit_scale": torch.ones((), device="meta")}, r"logit_scale is on meta, wanted cpu, the device of a"),
        ({"logit_scale": torch.tensor(1)}, r"logit_scale has dtype torch.int64, wanted one of float32"),
        ({"logit_scale": True}, r"logit_scale must be a number, got bool"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        ops.info_nce(**({"a": torch.zeros(3, 4), "b": torch.zeros(3, 4), "logit_scale": 1.0} | change))


def test_two_processes_equal_one(tmp_path, randn, gradients):
    leaves = [randn(6, 5), randn(6, 5), randn()]
    names = ("a", "b", "scale")
    np.savez(tmp_path / "inputs.npz", **{k: x.detach().numpy() for k, x in zip(names, leaves, strict=True)})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(Path(__file__).with_name("info_nce_rank.py"))]
    ranks = [
        subprocess.Popen([*command, str(rank), str(RANKS), str(tmp_path)], env=environment, stderr=subprocess.PIPE)
        for rank in range(RANKS)
    ]
    try:
        for rank in ranks:
            _, stderr = rank.communicate(timeout=120)
            assert rank.returncode == 0, stderr.decode()
    finally:
        for rank in ranks:
            rank.kill()

    loss = ops.info_nce(*leaves)
    wanted = dict(zip(names, gradients(loss, leaves), strict=True))
    half = ops.info_nce(leaves[0].bfloat16(), leaves[1].bfloat16(), 10.0)
    for rank in range(RANKS):
        with np.load(tmp_path / f"rank{rank}.npz", allow_pickle=False) as file:
            results = {name: torch.from_numpy(file[name]) for name in ("loss", "half", *names)}
            message = str(file["message"])
        torch.testing.assert_close(results["loss"], loss.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(results["half"], half.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(results["scale"], wanted["scale"], rtol=1e-12, atol=1e-14)
        for name in ("a", "b"):
            torch.testing.assert_close(results[name], wanted[name].chunk(RANKS)[rank], rtol=1e-12, atol=1e-14)
        assert message == f"a has {rank + 1} rows on this rank and [1, 2] over the ranks, wanted as many on each"
