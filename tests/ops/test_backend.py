import pytest
import torch

from prior_fast import ops
from prior_fast.ops.common.backend import resolve_backend

AVAILABLE = {"triton": "wants a GPU, x is on cpu", "reference": None}


def test_the_best_that_can_serve(monkeypatch):
    monkeypatch.delenv("PRIOR_FAST_BACKEND", raising=False)
    assert resolve_backend("op", None, AVAILABLE) == "reference"
    assert resolve_backend("op", None, {"triton": None, "reference": None}) == "triton"
    assert resolve_backend("op", "reference", {"triton": None, "reference": None}) == "reference"


def test_the_environment_sets_the_default(monkeypatch):
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "reference")
    assert resolve_backend("op", None, {"triton": None, "reference": None}) == "reference"
    assert resolve_backend("op", "triton", {"triton": None, "reference": None}) == "triton"
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "scipy")
    assert resolve_backend("op", None, AVAILABLE) == "reference"


@pytest.mark.parametrize(
    ("backend", "available", "message"),
    [
        ("triton", AVAILABLE, r"op: backend='triton' can't serve this call. can serve: reference; triton: wants a GPU"),
        ("cuda", AVAILABLE, r"op: backend='cuda': this op has no such backend. can serve: reference"),
        ("trition", AVAILABLE, r"op: backend='trition' is no backend: did you mean 'triton'\? can serve: reference"),
        (1, AVAILABLE, r"op: backend=1 is no backend"),
        (None, {"triton": "no GPU"}, r"op: no backend can serve this call: can serve: none; triton: no GPU"),
    ],
)
def test_refusals(backend, available, message, monkeypatch):
    monkeypatch.delenv("PRIOR_FAST_BACKEND", raising=False)
    with pytest.raises(ValueError, match=message):
        resolve_backend("op", backend, available)


@pytest.mark.parametrize(("value", "message"), [("triton", "can't serve"), ("refrence", "did you mean 'reference'")])
def test_refusals_of_the_environment(value, message, monkeypatch):
    monkeypatch.setenv("PRIOR_FAST_BACKEND", value)
    with pytest.raises(ValueError, match=f"PRIOR_FAST_BACKEND='{value}'.*{message}"):
        resolve_backend("op", None, AVAILABLE)


def test_ops_read_the_environment(monkeypatch):
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "numpy")
    with pytest.raises(ValueError, match=r"segment_mean: PRIOR_FAST_BACKEND='numpy' is no backend"):
        ops.segment_mean(torch.zeros(1, 1), torch.tensor([0, 1]))


def test_values_are_checked_when_asked(monkeypatch):
    wrong = torch.tensor([0, 2])
    monkeypatch.setenv("PRIOR_FAST_CHECK", "0")
    assert ops.segment_mean(torch.zeros(3, 1), wrong[:1] * 0 + torch.tensor([0, 3])).shape == (1, 1)
    ops.segment_mean(torch.zeros(1, 1), wrong)
    for setting, message in (("1", "cu_seqlens ends at 2"), ("", "cu_seqlens ends at 2"), ("yes", "wanted 0 or 1")):
        monkeypatch.setenv("PRIOR_FAST_CHECK", setting)
        with pytest.raises(ValueError, match=message):
            ops.segment_mean(torch.zeros(1, 1), wrong)
