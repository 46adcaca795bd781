"""What computes the image decoder's upsampled convolutions: cuDNN, the Triton kernels, or the faster one of each layer.

The setting is `upsampled_conv`. Times depend on the sizes, and so does the choice: each layer has its own.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

import prior_fast.kernels
from prior_fast.batch import PackedBatch
from prior_fast.config import RunConfig
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import MAP_SIZE
from prior_fast.model.known_moments import wants_moments
from prior_fast.model.prior import PRIORModel
from prior_fast.model.upsampled_conv import BACKENDS, UpsampledConv2d
from prior_fast.training.choices import Choices, Measure, milliseconds


def check_convolutions(config: RunConfig, device: torch.device, compiled: bool) -> None:
    """Raise UsageError for upsampled_conv=triton where it can't be used; compiled: whether steps are compiled."""
    reasons = {f"device={device.type}": device.type != "cuda", f"compile={config.compile}": not compiled}
    reason = next((name for name, holds in reasons.items() if holds), None)
    if reason and config.upsampled_conv == "triton":
        raise UsageError(
            f"upsampled_conv=triton does not go with {reason}: it is for compiled steps on a GPU; use "
            "upsampled_conv=cudnn, which also stands for torch's own convolution on a CPU"
        )


def choose_convolutions(
    model: PRIORModel,
    config: RunConfig,
    batch: PackedBatch,
    device: torch.device,
    *,
    choices: Choices | None = None,
    measure: Measure = milliseconds,
) -> dict[str, str]:
    """Set the backend of each upsampled convolution of `model`; returns the choices by the layers' names.

    Call it within autocast if the step runs within autocast, before the decoder is compiled or recorded. With
    upsampled_conv=auto a GPU times forward and backward pass of each layer at the size of `batch`, or the choices'
    file knows the result. A CPU has torch's convolution. Random generators are left as they are.

    Where the normalization takes its moments from the kernels, they are timed with them, and torch's convolution with a
    read of its result for the statistics: the least time that they take.
    """
    layers = {name: layer for name, layer in model.image_decoder.named_modules() if isinstance(layer, UpsampledConv2d)}
    norms = [module for module in model.image_decoder.modules() if isinstance(module, _BatchNorm)]
    moments = all(map(wants_moments, norms))
    side = MAP_SIZE
    for layer in layers.values():
        if config.upsampled_conv != "auto":
            layer.backend = config.upsampled_conv
        elif device.type == "cuda" or choices is not None:
            choices = choices or Choices.of(device)
            layer.backend = _choose(layer, moments, len(batch), side, device, choices, measure)
        else:
            layer.backend = "cudnn"
        side *= 2
    return {name: layer.backend for name, layer in layers.items()}


def _choose(
    layer: UpsampledConv2d,
    moments: bool,
    batch: int,
    side: int,
    device: torch.device,
    choices: Choices,
    measure: Measure,
) -> str:
    half = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if half else layer.weight.dtype
    generator = torch.Generator(device).manual_seed(0)

    def randn(channels: int, size: int) -> torch.Tensor:
        x = torch.randn(batch, size, size, channels, device=device, dtype=dtype, generator=generator)
        return x.permute(0, 3, 1, 2)

    inputs: list[torch.Tensor] = []
    wanted = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def result(x: torch.Tensor) -> torch.Tensor:
        # Without the ReLU: a compiled step computes its gradient together with the normalization's, unlike this call.
        if moments and layer.has_kernels(x):
            return layer.with_moments(x, relu=False)[0]
        y = layer(x)
        if moments:
            y.detach().sum()
        return y

    def candidate(backend: str) -> Callable[[], object]:
        def call() -> object:
            if not inputs:  # only where something is measured: a known choice takes no memory
                inputs.extend((randn(layer.in_channels, side).requires_grad_(), randn(layer.out_channels, 2 * side)))
            x, dy = inputs
            layer.backend = backend
            with torch.enable_grad():
                return torch.autograd.grad(result(x), [x, *wanted], dy)

        return call

    sizes = f"{batch}x{layer.in_channels}x{side}x{side} to {layer.out_channels}"
    kind = f"{str(dtype).removeprefix('torch.')}{' with moments' if moments else ''}"
    key = f"upsampled_conv {sizes} {kind} kernels {_digest()}"
    return choices.choose(key, {backend: candidate(backend) for backend in BACKENDS}, measure)


def _digest() -> str:
    """Of the kernels: a change of them is measured anew."""
    folder = Path(prior_fast.kernels.__path__[0])
    source = b"".join((folder / name).read_bytes() for name in ("upsampled_conv.py", "_joined_moments.py"))
    return hashlib.sha256(source).hexdigest()[:12]
