"""Batches on the device, made and copied there while it computes the step before."""

from collections.abc import Iterable, Iterator
from dataclasses import fields

import torch
from torch import Tensor

from prior_fast.batch import PackedBatch


def on_device(batches: Iterable[PackedBatch], device: torch.device) -> Iterator[PackedBatch]:
    """Yield the batches on `device`.

    On a GPU everything that makes a batch there runs on a stream of its own: copies, packing, augmentation. The host
    asks for a batch when it has launched the step before, which the GPU still computes. On the stream of the steps, the
    25 MB of 128 images in float32 from the host's memory would be copied after that step and not during it. The host
    waits for nothing.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    making: torch.cuda.Stream = torch.cuda.Stream(device)
    # What the batches are made of may still be on its way.
    making.wait_stream(torch.cuda.current_stream(device))
    iterator = iter(batches)
    while True:
        with torch.cuda.stream(making):
            found = next(iterator, None)
            if found is None:
                return
            batch = found.to(device)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(making)
        for tensor in tensors_of(batch):
            # Its memory is reused only after what the computing stream does with it now.
            tensor.record_stream(computing)
        # The consumer's step must not run on the stream that makes batches, so the context ends before.
        yield batch


def tensors_of(batch: PackedBatch) -> list[Tensor]:
    """The tensors of a batch."""
    values = (getattr(batch, field.name) for field in fields(batch))
    return [value for value in values if isinstance(value, Tensor)]
