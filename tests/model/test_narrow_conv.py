"""A convolution with few output channels, made with eight, against the convolution itself."""

import pytest
import torch

from prior_fast.model.narrow_conv import NarrowConv2d, widened_conv


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("channels", "shape"), [(1, (2, 48, 5, 7)), (1, (1, 1, 1, 1)), (3, (3, 6, 4, 4))])
def test_equals_the_convolution(
    channels: int, shape: tuple[int, ...], bias: bool, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(sum(shape))
    layer = NarrowConv2d(shape[1], channels, 3, padding=1, bias=bias).to(dtype)
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    found, wanted = widened_conv(x, layer), layer(x)
    assert found.shape == wanted.shape
    dout = torch.randn_like(wanted)
    gradients = (torch.autograd.grad(out, [x, *layer.parameters()], dout) for out in (found, wanted))
    for actual, expected in [(found, wanted), *zip(*gradients, strict=True)]:
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_parameters_are_those_of_the_convolution() -> None:
    NarrowConv2d(4, 1, 3).load_state_dict(torch.nn.Conv2d(4, 1, 3).state_dict())
