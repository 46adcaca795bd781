"""The operations of csrc/batch_norm_cpu.cpp, which describes their tensors, and what they take."""

from collections.abc import Sequence

import torch
from torch import Tensor

NONE, BEFORE, AFTER = 0, 1, 2  # `activation`: no ReLU, or one before or after the normalization

for _schema in (
    "norm_moments(Tensor x, int channels, int rank=0, int ranks=1, int activation=0) -> Tensor",
    "norm_scales(Tensor moments, Tensor? weight, Tensor? bias, float eps) -> Tensor",
    "norm_apply(Tensor x, Tensor scales, int activation=0, Tensor? residual=None) -> Tensor",
    "norm_gradient_sums(Tensor dy, Tensor x, Tensor scales, int activation=0) -> Tensor",
    "norm_gradient(Tensor dy, Tensor x, Tensor scales, Tensor sums, Tensor moments, int activation=0) -> Tensor",
):
    _name, _, _rest = _schema.partition("(")
    torch.library.define(f"prior_fast::{_name}", f"({_rest}")

DTYPES = (torch.float32, torch.bfloat16)


def takes(x: Tensor, parameters: Sequence[Tensor | None]) -> bool:
    """Whether the kernels take `x` with these weights and biases here: they are not for compiled graphs."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and as_rows(x).is_contiguous()
        and all(parameter is None or parameter.dtype == torch.float32 for parameter in parameters)
    )


def as_rows(x: Tensor) -> Tensor:
    """A view of rows [N, C] or images [B, C, h, w] whose last dimension is the channels."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x
