"""What the tests of the ops share."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

RELATIVE_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
FLOAT32_ROUNDING = 2.0**-24


class GoldenFile:
    """A file of recorded numbers, its inputs given in one dtype."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        """An array as it is stored."""
        return torch.from_numpy(self.arrays[name])

    def leaf(self, name: str) -> Tensor:
        """An input in the dtype under test, ready for a gradient."""
        return self[name].to(self.dtype).requires_grad_()

    def parameters(self, prefix: str) -> dict[str, Tensor]:
        """All inputs whose name begins with `prefix`, by what follows it."""
        return {name.removeprefix(prefix): self.leaf(name) for name in self.arrays if name.startswith(prefix)}

    def check(self, actual: Tensor, name: str) -> None:
        """Fail unless `actual` is the stored array: to 1e-6 of its greatest value in float64, 1e-4 in float32.

        Arrays are stored rounded to float32. Those below 1e-12 everywhere are zero by structure: compared absolutely.
        """
        assert actual.dtype == self.dtype
        expected = self[name].double()
        assert actual.shape == expected.shape, name
        size = expected.abs().max().item()
        error = (actual.double() - expected).abs().max().item()
        tolerance = (RELATIVE_TOLERANCE[self.dtype] + FLOAT32_ROUNDING) * size
        if size < 1e-12:
            tolerance = 1e-12 if self.dtype == torch.float64 else 5e-5
        assert error <= tolerance, f"{name}: {error} > {tolerance}, greatest {size}"

    def check_scalar(self, actual: Tensor, name: str) -> None:
        """Fail unless `actual` is the number stored in float64."""
        expected = self[f"{name}_f64"].item()
        tolerance = 1e-12 if self.dtype == torch.float64 else RELATIVE_TOLERANCE[self.dtype]
        assert actual.dtype == self.dtype
        assert actual.item() == pytest.approx(expected, rel=tolerance), name


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def golden_file(golden: Path, request: pytest.FixtureRequest) -> Callable[[str], GoldenFile]:
    """Opens a golden file by its name; the test runs in float64 and in float32."""
    return lambda name: GoldenFile(golden / f"{name}.npz", request.param)


@pytest.fixture(
    params=[("reference", torch.float64), ("reference", torch.float32), ("triton", torch.float32)],
    ids=lambda case: f"{case[0]}-{str(case[1]).removeprefix('torch.')}",
)
def golden_case(golden: Path, request: pytest.FixtureRequest) -> Callable[[str], tuple[GoldenFile, str]]:
    """Opens a golden file by its name, with the backend under test; Triton's kernels do not take float64."""
    backend, dtype = request.param
    return lambda name: (GoldenFile(golden / f"{name}.npz", dtype), backend)


def _gradients(output: Tensor, inputs: Sequence[Tensor], retain_graph: bool = True) -> list[Tensor]:
    found = torch.autograd.grad(output, inputs, retain_graph=retain_graph, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


@pytest.fixture
def gradients() -> Callable[[Tensor, Sequence[Tensor]], list[Tensor]]:
    """Gradients of a scalar, zeros where there is no path; the graph is kept."""
    return _gradients


@pytest.fixture
def offsets() -> Callable[..., Tensor]:
    """Offsets int32 of segments of the given lengths."""

    def make(*lengths: int) -> Tensor:
        return torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)

    return make


@pytest.fixture
def randn(rng: np.random.Generator) -> Callable[..., Tensor]:
    """A float64 leaf of standard normal numbers that requires a gradient."""

    def make(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).requires_grad_()

    return make


def _run(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The output, and the gradients of its sum weighted by fixed numbers."""
    output = function(*tensors)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    return [output, *_gradients((output * weights).sum(), tensors)]


@pytest.fixture
def check_equal() -> Callable[..., None]:
    """Fails unless two functions of float64 tensors agree to 1e-12, gradients included."""

    def check(function: Callable[..., Tensor], naive: Callable[..., Tensor], *tensors: Tensor) -> None:
        for actual, expected in zip(_run(function, tensors), _run(naive, tensors), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    return check


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32], ids=["bfloat16", "float16", "float32"])
def check_precision(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Fails unless an op in a low precision errs at most twice as much as plain PyTorch in it, plus one rounding.

    The truth is the plain formula in float64 on the same, rounded inputs; output and every gradient are compared.
    """
    dtype: torch.dtype = request.param

    def check(function: Callable[..., Tensor], naive: Callable[..., Tensor], *tensors: Tensor) -> None:
        low = [x.detach().to(dtype).requires_grad_() for x in tensors]
        truth = _run(naive, [x.detach().double().requires_grad_() for x in low])
        results = _run(function, low)
        assert results[0].dtype == (dtype if results[0].dim() else torch.float32), (
            "losses are float32, the rest as given"
        )
        for actual, plain, true in zip(results, _run(naive, low), truth, strict=True):
            error = (actual.double() - true).abs().max().item()
            yardstick = (plain.double() - true).abs().max().item()
            rounding = torch.finfo(dtype).eps * true.abs().max().item()
            assert error <= 2 * yardstick + rounding

    return check


@pytest.fixture
def check_compiled() -> Callable[..., None]:
    """Fails unless a function compiles to one graph that serves all cases, with its own values and gradients."""

    def check(function: Callable[..., Tensor], *cases: tuple[Any, ...]) -> None:
        from torch._dynamo.testing import CompileCounterWithBackend

        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
        compilations = []
        for case in cases:
            leaves = [x for x in case if isinstance(x, Tensor) and x.requires_grad]
            outputs = [f(*case) for f in (compiled, function)]
            torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
            if leaves:
                found = [_gradients(output.sum(), leaves, retain_graph=False) for output in outputs]
                torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
            compilations.append(counter.frame_count)
        assert compilations[-1] == compilations[0] > 0

    return check


class NoHostRead(TorchDispatchMode):
    """Raises on ops that would make the host wait for a device: reads of values, or of shapes that depend on values."""

    FORBIDDEN = ("_local_scalar_dense", "masked_select", "repeat_interleave", "equal", "is_nonzero")
    INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.FORBIDDEN or name.lstrip("_").startswith(("nonzero", "unique")):
            raise AssertionError(f"aten.{name} reads values on the host")
        if name in self.INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise AssertionError(f"aten.{name} with a mask has a shape that depends on values")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_host_read(monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[Any]:
    """A block in which nothing may be read back to the host; checks of values are off, as they are on a GPU."""
    monkeypatch.setenv("PRIOR_FAST_CHECK", "0")
    return NoHostRead()
