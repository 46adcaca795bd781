"""Which backend comes first in float32 on a GPU, where cuBLAS may be faster than a kernel."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prior_fast.ops.common.triton import with_triton
from prior_fast.ops.info_nce import KEPT_PRODUCTS, _kernels_win


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("for_float32", [True, False])
def test_the_order_of_backends_on_a_gpu(dtype: torch.dtype, for_float32: bool) -> None:
    x: Any = SimpleNamespace(device=torch.device("cuda"), dtype=dtype)
    first = next(iter(with_triton(x, for_float32)))
    assert first == ("reference" if dtype == torch.float32 and not for_float32 else "triton")


def test_info_nce_of_many_rows_keeps_no_matrix_of_logits() -> None:
    large = int(KEPT_PRODUCTS**0.5) + 1
    assert [_kernels_win(rows, None) for rows in (1, 128, 129, large - 1, large)] == [True, True, False, False, True]
    group: Any = object()
    assert _kernels_win(512, group)
