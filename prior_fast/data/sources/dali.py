"""Prepared images through NVIDIA DALI, on a CPU or a GPU."""

import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prior_fast import extension
from prior_fast.data.batch_plan import BatchPlan, LoaderConfig
from prior_fast.data.packing import to_device
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.image_source import DTYPES
from prior_fast.errors import UsageError
from prior_fast.ops.rotate_images import rotate_images

# The number of batches that are made in advance.
AHEAD = 2


class DaliSource:
    """Prepared images through DALI, with one pipeline for each stream.

    On a GPU the pipeline rotates, mirrors and normalizes; results stay there and are passed on without a copy.
    On a CPU a loader with DALI's rotation gives fewer pairs/s than torchvision's transforms (docs/performance.md), so
    `rotate_images` is used there if the C++ extension is built. data.workers is the number of DALI's threads.

    Raises:
        UsageError: DALI is not installed.
    """

    replaced = 0

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig, device: torch.device) -> None:
        require_dali()
        self.dataset, self.config, self.device = dataset, config, device
        self.compute = device
        self.dali_rotates = device.type == "cuda" or extension.unavailable("cpu") is not None
        self.description = f"prepared images through DALI on {device.type}"

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[Tensor]:
        coming, taken = iter(plans), deque[BatchPlan]()
        first = next(coming, None)
        if first is None:
            return
        ahead = chain([first], coming)

        def read() -> tuple[np.ndarray, ...]:
            plan = next(ahead)
            taken.append(plan)
            pixels = self.dataset.images[plan.image_rows][..., None]
            return (pixels, plan.angles, plan.flips.astype(np.int32)) if self.dali_rotates else (pixels,)

        pipeline = new_pipeline(self.device, self.config, len(first.studies))
        with pipeline:
            read_in = _sources(read, 3 if self.dali_rotates else 1)
            pipeline.set_outputs(self._augmented(*read_in) if self.dali_rotates else read_in[0])
        for (images,) in run(pipeline):
            plan = taken.popleft()
            if self.dali_rotates:
                yield images.to(DTYPES[self.config.data.dtype])
            else:
                yield augmented(images[..., 0], plan, self.dataset, self.config)

    def _augmented(self, pixels: Any, angles: Any, flips: Any) -> Any:
        from nvidia.dali import fn, types

        if self.device.type == "cuda":
            pixels = pixels.gpu()
        nearest = self.config.data.interpolation == "nearest"
        interpolation = types.INTERP_NN if nearest else types.INTERP_LINEAR
        # DALI turns counterclockwise.
        turned = fn.rotate(
            pixels, angle=-angles, keep_size=True, fill_value=0, interp_type=interpolation, dtype=types.FLOAT
        )
        half = self.config.data.dtype == "float16"
        return fn.crop_mirror_normalize(
            turned,
            mirror=flips,
            mean=[255 * self.dataset.image_mean],
            std=[255 * self.dataset.image_std],
            dtype=types.FLOAT16 if half else types.FLOAT,
            output_layout="CHW",
        )


def augmented(pixels: Tensor, plan: BatchPlan, dataset: PreparedDataset, config: LoaderConfig) -> Tensor:
    """The images of a plan, uint8 [B, H, W] in its order, rotated, mirrored and normalized by `rotate_images`."""
    return rotate_images(
        pixels,
        torch.arange(len(pixels), device=pixels.device),
        to_device(plan.angles, pixels.device),
        to_device(plan.flips, pixels.device),
        mean=dataset.image_mean,
        std=dataset.image_std,
        dtype=DTYPES[config.data.dtype],
        interpolation=config.data.interpolation,
    )


def require_dali() -> None:
    """Raise UsageError unless DALI is installed."""
    if importlib.util.find_spec("nvidia.dali") is None:
        raise UsageError(
            "data.source=dali: NVIDIA DALI is not installed: pip install 'prior-fast[dali]' (Linux on x86-64), or use "
            "data.source=memory"
        )


def new_pipeline(device: torch.device, config: LoaderConfig, batch_size: int) -> Any:
    """An empty pipeline for `device`."""
    from nvidia.dali.pipeline import Pipeline

    return Pipeline(
        batch_size=batch_size,
        num_threads=max(1, config.data.workers),
        device_id=(device.index or 0) if device.type == "cuda" else None,
        prefetch_queue_depth=AHEAD,
        exec_dynamic=True,
    )


def run(pipeline: Any) -> Iterator[tuple[Tensor, ...]]:
    """The outputs of a pipeline until its source ends. The tensors share DALI's memory and keep it alive."""
    pipeline.build()
    while True:
        try:
            outputs = pipeline.run()
        except StopIteration:
            return
        yield tuple(torch.from_dlpack(output.as_tensor()) for output in outputs)


def _sources(read: Any, count: int) -> Any:
    from nvidia.dali import fn

    return fn.external_source(source=read, num_outputs=count, batch=True, layout=["HWC", "", ""][:count])
