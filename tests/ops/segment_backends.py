"""The backends that the tests of ops on segments compare, and threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from prior_fast import extension

needs_library = pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="the cpu library is not built")
CPP = pytest.param("cpp", marks=needs_library)
kernels = pytest.mark.parametrize("backend", ["triton", CPP])
backends = pytest.mark.parametrize("backend", ["reference", "triton", CPP])


def _case(backend: str, dtype: torch.dtype, *values: object) -> object:
    name = f"{backend}-{str(dtype).removeprefix('torch.')}"
    return pytest.param(*values, id=name, marks=needs_library if backend == "cpp" else ())


# The C++ kernels do not take float16.
LOW = [(name, dtype) for name in ("reference", "triton") for dtype in (torch.bfloat16, torch.float16, torch.float32)]
LOW += [("cpp", torch.bfloat16), ("cpp", torch.float32)]
# For a test with the fixture `check_precision`, which has the dtype.
precisions = pytest.mark.parametrize(
    ("backend", "check_precision"), [_case(*x, *x) for x in LOW], indirect=["check_precision"]
)
precisions_of_kernels = pytest.mark.parametrize(
    ("backend", "check_precision"), [_case(*x, *x) for x in LOW if x[0] != "reference"], indirect=["check_precision"]
)
kernels_and_dtypes = pytest.mark.parametrize(("backend", "dtype"), [_case(*x, *x) for x in LOW if x[0] != "reference"])
cpp_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])

_GOLDEN = [
    ("reference", torch.float64),
    ("reference", torch.float32),
    ("triton", torch.float32),
    ("cpp", torch.float32),
]
# For a test with the fixture `golden_case`, which has both.
golden_backends = pytest.mark.parametrize("golden_case", [_case(*x, x) for x in _GOLDEN], indirect=True)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
