"""Images from the prepared array: mapped from disk, in page-locked host memory, or on the GPU."""

import os
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from prior_fast.data.batch_plan import BatchPlan, LoaderConfig
from prior_fast.data.packing import shared_tensor, to_device
from prior_fast.data.prefetch import prefetch
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.image_source import DTYPES
from prior_fast.errors import UsageError
from prior_fast.ops.rotate_images import rotate_images

# Shares of the free memory that images may take with data.images=auto; the model needs the rest.
GPU_SHARE, HOST_SHARE = 0.35, 0.5


class MemorySource:
    """The whole array of images in one place, where one op augments them.

    data.images: "disk" (memory-mapped; the operating system caches the pages), "host" (a page-locked copy), "gpu", or
    "auto": on a GPU the first of gpu, host and disk with enough room, on a CPU disk.
    data.workers: with 0 a batch is made on request; with more a thread makes batches in advance. Unused with "gpu".
    """

    replaced = 0

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig, device: torch.device) -> None:
        self.dataset, self.config = dataset, config
        self.place = choose_place(config.data.images, dataset.images.nbytes, device)
        self.compute = device if self.place == "gpu" else torch.device("cpu")
        images = shared_tensor(dataset.images)
        if self.place == "gpu":
            self.images = images.to(device)
        else:
            self.images = images.pin_memory() if self.place == "host" and device.type == "cuda" else images
        self.pinned = device.type == "cuda" and self.place != "gpu"
        self.description = f"images in memory ({self.place}, {dataset.images.nbytes / 2**30:.2f} GiB)"

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[Tensor]:
        made = map(self._make, plans)
        return made if self.place == "gpu" or not self.config.data.workers else prefetch(made, depth=2)

    def _make(self, plan: BatchPlan) -> Tensor:
        images = rotate_images(
            self.images,
            to_device(plan.image_rows, self.compute),
            to_device(plan.angles, self.compute),
            to_device(plan.flips, self.compute),
            mean=self.dataset.image_mean,
            std=self.dataset.image_std,
            dtype=DTYPES[self.config.data.dtype],
            interpolation=self.config.data.interpolation,
        )
        return images.pin_memory() if self.pinned else images


def choose_place(wanted: str, size: int, device: torch.device) -> str:
    """The place for `size` bytes of images: "gpu", "host" or "disk".

    Raises:
        UsageError: "gpu" is requested, but there is no GPU or its free memory is too small.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    if wanted == "gpu" and size > free:
        have = f"{free / 2**30:.1f} GiB are free" if device.type == "cuda" else "training runs on the CPU"
        raise UsageError(f"data.images=gpu: {size / 2**30:.1f} GiB of images, and {have}; use data.images=auto")
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "disk"
    if size <= GPU_SHARE * free:
        return "gpu"
    return "host" if size <= HOST_SHARE * available_memory() else "disk"


def available_memory() -> int:
    """Available bytes of the host's memory; 0 if the system does not report them."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
