"""The counters of batches of a recorded module's batch normalizations, counted together.

Each layer of a ResNet-50 and the image decoder, 63 in all, would add 1 to its `num_batches_tracked` by a kernel of its
own. Nothing computes with these numbers, since the layers have a fixed momentum; a state dict holds them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def uncounted(module: nn.Module) -> Iterator[list[Tensor]]:
    """Context manager: the batch normalizations of `module` do not count; yields their counters.

    Layers that use their counter, without a momentum, still count.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.momentum is not None]
    kept = {layer: layer.num_batches_tracked for layer in norms if layer.num_batches_tracked is not None}
    for layer in kept:
        layer.num_batches_tracked = None
    try:
        yield list(kept.values())
    finally:
        for layer, counter in kept.items():
            layer.num_batches_tracked = counter
