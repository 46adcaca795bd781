"""The forms that convolutions have in a compiled step on a GPU, against the convolutions themselves."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.model.image_decoder import ImageDecoder
from prior_fast.model.image_encoder import ResNet
from prior_fast.model.narrow_conv import NarrowConv2d
from prior_fast.model.padded_conv import PaddedConv2d
from prior_fast.model.stem_conv import StemConv2d
from prior_fast.model.upsampled_conv import UpsampledConv2d

# A function that makes the layer for each test, and the size of the layer's input.
CASES = {
    "narrow": (lambda: NarrowConv2d(48, 1, 3), (2, 48, 5, 7)),
    "narrow, one pixel": (lambda: NarrowConv2d(3, 1, 3, bias=False), (1, 3, 1, 1)),
    "narrow, three channels": (lambda: NarrowConv2d(6, 3, 3), (3, 6, 4, 2)),
    "narrow, 5x5": (lambda: NarrowConv2d(2, 2, 5), (2, 2, 4, 9)),
    "padded": (lambda: PaddedConv2d(48, 48, 3, padding=1, bias=False), (2, 48, 3, 5)),
    "padded inside": (lambda: PaddedConv2d(33, 96, 3, stride=2), (1, 33, 5, 5)),
    "padded outside, bias": (lambda: PaddedConv2d(64, 63, 1), (2, 64, 1, 2)),
    "not padded": (lambda: PaddedConv2d(32, 64, 3, padding=1), (2, 32, 2, 3)),
    "stem": (lambda: StemConv2d(6), (2, 1, 12, 18)),
    "stem, smallest": (lambda: StemConv2d(1), (1, 1, 2, 2)),
}


def outputs(layer: nn.Conv2d, x: Tensor, dout: Tensor | None, compiled: bool) -> list[Tensor]:
    """The output and every gradient."""
    out = layer.compiled_forward(x) if compiled else layer(x)  # type: ignore[operator]
    dout = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out).sin() if dout is None else dout
    return [out, *torch.autograd.grad(out, [x, *layer.parameters()], dout)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("innermost", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_convolution(name: str, innermost: bool, dtype: torch.dtype, tolerance: float) -> None:
    make, shape = CASES[name]
    torch.manual_seed(sum(shape))
    layer = make().to(dtype)
    x = torch.randn(shape, dtype=dtype)
    x = (x.contiguous(memory_format=torch.channels_last) if innermost else x).requires_grad_()
    for found, wanted in zip(outputs(layer, x, None, True), outputs(layer, x, None, False), strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_stem_takes_odd_images_as_it_is() -> None:
    layer = StemConv2d(3)
    plain = nn.Conv2d(1, 3, 7, stride=2, padding=3, bias=False)
    plain.load_state_dict(layer.state_dict())
    for size in ((13, 18), (12, 9), (1, 1)):
        images = torch.randn(2, 1, *size)
        torch.testing.assert_close(layer(images), plain(images))


@pytest.mark.parametrize(
    ("layer", "plain"),
    [
        (NarrowConv2d(4, 1, 3), nn.Conv2d(4, 1, 3, padding=1)),
        (PaddedConv2d(4, 2, 3), nn.Conv2d(4, 2, 3)),
        (StemConv2d(4), nn.Conv2d(1, 4, 7, bias=False)),
    ],
)
def test_parameters_are_those_of_the_convolution(layer: nn.Module, plain: nn.Module) -> None:
    layer.load_state_dict(plain.state_dict())


def test_the_model_has_these_layers() -> None:
    decoder = ImageDecoder(64, "after_relu")
    kinds = [type(module) for module in decoder.modules() if isinstance(module, nn.Conv2d)]
    assert kinds == [UpsampledConv2d, PaddedConv2d] * 5 + [NarrowConv2d]
    assert type(ResNet((1,), 8).conv1) is StemConv2d


def test_compiled_form_is_taken_only_when_compiling_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = PaddedConv2d(48, 48, 3), torch.randn(1, 48, 4, 4)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias), rtol=0, atol=0)
