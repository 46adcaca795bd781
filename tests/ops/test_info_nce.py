import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from prior_fast import ops

ROOT = Path(__file__).resolve().parents[2]
RANKS = 2


def naive(a, b, scale):
    logits, labels = scale * a @ b.T, torch.arange(len(a))
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


@pytest.fixture(params=[False, True], ids=["kept", "anew"])
def products(request, monkeypatch):
    """Triton's backward pass with the forward pass's products, and without them as for large batches."""
    if request.param:
        monkeypatch.setattr(importlib.import_module("prior_fast.ops.info_nce"), "KEPT_PRODUCTS", 0)


def units(rng, n, d, noise=0.5):
    """Pairs of vectors that are near each other."""
    a = torch.from_numpy(rng.standard_normal((n, d)))
    b = normalize(a, dim=1) + noise / d**0.5 * torch.from_numpy(rng.standard_normal((n, d)))
    return normalize(a, dim=1).requires_grad_(), normalize(b, dim=1).requires_grad_()


def test_golden_global_alignment(golden_case, gradients):
    file, backend = golden_case("global_alignment")
    leaves = [file.leaf(name) for name in ("image", "text", "logit_scale")]
    image, text, scale = leaves
    loss = ops.info_nce(normalize(image, dim=1), normalize(text, dim=1), scale.exp(), backend=backend)
    file.check_scalar(loss, "loss")
    for gradient, name in zip(gradients(loss, leaves), ("image", "text", "logit_scale"), strict=True):
        file.check(gradient.reshape(file[f"g.{name}"].shape), f"g.{name}")


@pytest.mark.parametrize(("n", "d"), [(2, 1), (1, 5), (13, 7)])
def test_shapes(n, d, randn, check_equal):
    check_equal(ops.info_nce, naive, randn(n, d), randn(n, d), randn())


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_the_loss_is_the_mean_of_both_directions(backend, randn):
    a, b = randn(6, 4).detach().float(), randn(6, 4).detach().float()
    logits, labels = 2 * a @ b.T, torch.arange(6)
    one, other = cross_entropy(logits, labels).item(), cross_entropy(logits.T, labels).item()
    assert abs(one - other) > 1e-2
    assert ops.info_nce(a, b, 2.0, backend=backend).item() == pytest.approx((one + other) / 2, rel=1e-4)


def test_scale_may_be_a_number(randn):
    a, b = randn(4, 3), randn(4, 3)
    torch.testing.assert_close(ops.info_nce(a, b, 5), naive(a, b, 5))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_one_pair_is_exactly_zero(backend, randn, gradients):
    leaves = [x.detach().float().requires_grad_() for x in (randn(1, 5), randn(1, 5), 100 * randn())]
    loss = ops.info_nce(*leaves, backend=backend)
    assert loss.item() == 0 and all(not g.any() for g in gradients(loss, leaves))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_no_pair(backend, gradients):
    leaves = [torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 3), torch.tensor(2.0, requires_grad=True)]
    loss = ops.info_nce(*leaves, backend=backend)
    da, dscale = gradients(loss, [leaves[0], leaves[2]])
    assert loss.item() == 0 and da.shape == (0, 3) and dscale.item() == 0


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_large_logits_stay_finite(backend, gradients):
    a = torch.eye(3, requires_grad=True)
    loss = ops.info_nce(a, torch.eye(3).roll(1, 0), 1e4, backend=backend)
    assert loss.item() == pytest.approx(1e4) and gradients(loss, [a])[0].isfinite().all()


def test_non_contiguous(randn, check_equal):
    check_equal(
        lambda a, b: ops.info_nce(a.T, b[::2], 2.0), lambda a, b: naive(a.T, b[::2], 2.0), randn(3, 5), randn(10, 3)
    )


def test_precision(randn, check_precision):
    a, b = (normalize(randn(24, 16), dim=1) for _ in range(2))
    check_precision(lambda a, b: ops.info_nce(a, b, 14.0), lambda a, b: naive(a, b, 14.0), a, b)


@pytest.mark.parametrize(
    ("n", "d", "scale", "noise"),
    [
        (5, 3, 1.0, 0.5),
        (70, 40, 14.0, 2.0),  # sizes that fill no block
        (20, 150, 100.0, 5.0),  # large logits, pairs that are hard to distinguish
        (40, 2, -3.0, 0.5),
    ],
)
def test_triton_precision(n, d, scale, noise, products, rng, check_precision):
    function = lambda a, b, scale: ops.info_nce(a, b, scale, backend="triton")  # noqa: E731
    check_precision(function, naive, *units(rng, n, d, noise), torch.tensor(scale).double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_triton_precision_of_losses_near_zero(dtype, products):
    """Here one exponential of a large logit is nearly all of the loss, so a single draw's error is one rounding, in
    plain PyTorch and in the kernel. The test compares the worst errors over several draws."""
    errors = []
    for seed in range(6):
        low = [x.detach().to(dtype).requires_grad_() for x in units(np.random.default_rng(seed), 20, 20, 1.0)]
        low.append(torch.tensor(100.0, requires_grad=True, dtype=dtype))
        runs = []
        for function, leaves in (
            (lambda *x: ops.info_nce(*x, backend="triton"), low),
            (naive, low),
            (naive, [x.detach().double().requires_grad_() for x in low]),
        ):
            loss = function(*leaves)
            runs.append([loss, *torch.autograd.grad(loss, leaves)])
        true = runs.pop()
        errors.append(
            [[((x - t).abs().max() / t.abs().max()).item() for x, t in zip(run, true, strict=True)] for run in runs]
        )
    found, plain = torch.tensor(errors).amax(dim=0)
    assert (found <= 2 * plain + torch.finfo(dtype).eps).all(), (found, plain)
    if dtype == torch.float32:
        assert (found <= 100 * 2**-23 * 4).all(), "the rounding of a logit, and no cancellation on top"


def test_triton_with_equal_rows(products, rng, check_precision):
    """The gradient cancels up to rounding: all parts of it must use the same rounding."""
    a = units(rng, 10, 20)[0].repeat_interleave(4, dim=0).detach().requires_grad_()
    check_precision(
        lambda a: ops.info_nce(a, a.clone(), 100.0, backend="triton"), lambda a: naive(a, a.clone(), 100.0), a
    )


@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(1, 40), d=st.integers(1, 40), scale=st.sampled_from([0.0, 0.1, -5.0, 20.0]), seed=st.integers(0, 9)
)
def test_triton_on_any_shape(n, d, scale, seed):
    a, b = (x.detach().float() for x in units(np.random.default_rng(seed), n, d, 1.0))
    leaves = [a.T.contiguous().T.requires_grad_(), b.requires_grad_(), torch.tensor(scale, requires_grad=True)]
    found, wanted = (ops.info_nce(*leaves, backend=backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)
    for pair in zip(*(torch.autograd.grad(loss, leaves) for loss in (found, wanted)), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


def test_triton_takes_numbers_and_one_gradient(products, rng, gradients):
    a, b = (x.detach().float() for x in units(rng, 6, 4))
    a.requires_grad_()
    found, wanted = (ops.info_nce(a, b, 5, backend=backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(gradients(loss, [a])[0] for loss in (found, wanted)))


def test_triton_is_the_same_in_every_run(products, rng, gradients):
    leaves = [x.detach().float().requires_grad_() for x in (*units(rng, 20, 9), torch.tensor(9.0))]
    runs = []
    for dtype in (None, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = ops.info_nce(*leaves, backend="triton")
            runs.append([loss, *gradients(loss, leaves)])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


@pytest.mark.parametrize(("rows", "begin"), [(2048, 0), (512, 1024)])
def test_triton_has_no_matrix_of_logits_at_large_batches(rows, begin):
    """All tensors that the kernels read and write, in a single process and on a rank that owns a part of the batch."""
    from prior_fast.kernels.common.launch import recording
    from prior_fast.kernels.info_nce import info_nce_bwd, info_nce_fwd, info_nce_total

    a, scale = torch.empty(2048, 64, device="meta"), torch.empty((), device="meta")
    keep = rows * 2048 <= importlib.import_module("prior_fast.ops.info_nce").KEPT_PRODUCTS
    with recording() as launches:
        stats, kept = info_nce_fwd(a, a, scale, begin, rows, keep)
        stats = torch.empty(5, 2, 2048, device="meta")
        _, slope = info_nce_total(stats)
        gradients = info_nce_bwd(scale, a, a, scale, stats, slope, kept, begin)
    assert [x.shape for x in gradients] == [(rows, 64), (rows, 64), ()]
    tensors = [x for launch in launches for x in launch.arguments.values() if isinstance(x, torch.Tensor)]
    assert len(launches) == 3 and max(x.numel() for x in tensors if x is not kept) == 2048 * 64
    assert kept.numel() <= 2 * importlib.import_module("prior_fast.ops.info_nce").KEPT_PRODUCTS < 2048 * 2048


def test_passes_opcheck(rng):
    a, b = (x.detach().float() for x in units(rng, 5, 3))
    scale = torch.tensor(3.0)
    stats, kept = torch.ops.prior_fast.info_nce_stats(a, b, scale, 0, 5, True)
    leaves = [x.clone().requires_grad_() for x in (a, b, scale)]
    loss, slope = torch.ops.prior_fast.info_nce(*leaves, a, b, stats, kept, 0)
    torch.library.opcheck(torch.ops.prior_fast.info_nce_stats.default, (a, b, scale, 1, 3, False))
    # The second output has no gradient, though it counts as differentiable.
    torch.library.opcheck(torch.ops.prior_fast.info_nce.default, (*leaves, a, b, stats, kept, 0))
    torch.library.opcheck(
        torch.ops.prior_fast.info_nce_backward.default, (loss.detach(), a, b, scale, stats, slope.detach(), kept, 0)
    )


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_float32_scale_with_bfloat16_vectors(backend, randn, gradients):
    a, b, scale = randn(4, 3).bfloat16(), randn(4, 3).bfloat16(), torch.tensor(3.0, requires_grad=True)
    loss = ops.info_nce(a, b, scale, backend=backend)
    (gradient,) = gradients(loss, [scale])
    assert loss.dtype == gradient.dtype == torch.float32 and gradient.item() != 0


def test_gradcheck(randn):
    assert torch.autograd.gradcheck(ops.info_nce, (randn(4, 2), randn(4, 2), randn()))


def test_compiles_to_one_graph(randn, check_compiled):
    check_compiled(ops.info_nce, *((randn(n, 4), randn(n, 4), randn()) for n in (5, 8)))


def test_triton_compiles_to_one_graph(randn, check_compiled):
    def function(a, b, scale):
        a, b, scale = a.float(), b.float(), scale.float()
        loss = ops.info_nce(a, b, scale, backend="triton") + ops.info_nce(b, 2 * a, 3.0, backend="triton")
        return loss.double()

    check_compiled(function, *((randn(n, 4), randn(n, 4), randn()) for n in (5, 8)))


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
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, str(Path(__file__).with_name("info_nce_rank.py"))]
    ranks = [
        subprocess.Popen([*command, str(rank), str(RANKS), str(tmp_path)], env=environment, stderr=subprocess.PIPE)
        for rank in range(RANKS)
    ]
    try:
        for rank in ranks:
            _, stderr = rank.communicate()
            assert rank.returncode == 0, stderr.decode()
    finally:
        for rank in ranks:
            rank.kill()

    loss = ops.info_nce(*leaves)
    wanted = dict(zip(names, gradients(loss, leaves), strict=True))
    half = ops.info_nce(leaves[0].bfloat16(), leaves[1].bfloat16(), 10.0)
    single = [x.detach().float().requires_grad_() for x in leaves]
    for rank in range(RANKS):
        with np.load(tmp_path / f"rank{rank}.npz", allow_pickle=False) as file:
            results = {name: torch.from_numpy(file[name]) for name in file.files if name != "message"}
            message = str(file["message"])
        torch.testing.assert_close(results["loss"], loss.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(results["half"], half.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(results["scale"], wanted["scale"], rtol=1e-12, atol=1e-14)
        for name in ("a", "b"):
            torch.testing.assert_close(results[name], wanted[name].chunk(RANKS)[rank], rtol=1e-12, atol=1e-14)
        assert message == f"a has {rank + 1} rows on this rank and [1, 2] over the ranks, wanted equal numbers"
        for way in ("kept", "anew"):
            joined = ops.info_nce(*single, backend="triton")
            da, db, dscale = gradients(joined, single)
            assert torch.equal(results[f"{way}.loss"], joined.detach()), "as on one process, to the last bit"
            assert torch.equal(results[f"{way}.scale"], dscale)
            torch.testing.assert_close(results[f"{way}.a"], da.chunk(RANKS)[rank], rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(results[f"{way}.b"], db.chunk(RANKS)[rank], rtol=1e-5, atol=1e-7)
