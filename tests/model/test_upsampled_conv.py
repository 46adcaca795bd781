"""The transposed convolution against the plain form: upsample, then convolve."""

import pytest
import torch
from torch.nn import functional as F

from prior_fast.model.upsampled_conv import UpsampledConv2d


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (2, 4, 7, 7), (3, 2, 6, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_upsampling_and_convolving(shape, bias, dtype, tolerance):
    torch.manual_seed(sum(shape))
    convolution = UpsampledConv2d(shape[1], 5, bias=bias).to(dtype)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    parameters = [x, *convolution.parameters()]
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), convolution.weight, convolution.bias, padding=1)
    weights = torch.randn_like(plain)
    found = [convolution(x), *torch.autograd.grad((convolution(x) * weights).sum(), parameters)]
    wanted = [plain, *torch.autograd.grad((plain * weights).sum(), parameters)]
    for actual, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_parameters_are_those_of_the_plain_convolution():
    plain = torch.nn.Conv2d(4, 2, 3, padding=1)
    UpsampledConv2d(4, 2).load_state_dict(plain.state_dict())
