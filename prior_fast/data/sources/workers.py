"""Images made by worker processes of PyTorch's DataLoader, for machines where nothing else can be installed."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prior_fast.data.batch_plan import BatchPlan, LoaderConfig
from prior_fast.data.packing import shared_tensor
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.image_source import DTYPES
from prior_fast.ops.rotate_images import rotate_images


class PlannedImages(Dataset):
    """A dataset whose indices are plans and whose items are the images of the plan."""

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig) -> None:
        self.dataset, self.config = dataset, config

    def __getitem__(self, plan: BatchPlan) -> Tensor:
        return rotate_images(
            shared_tensor(self.dataset.images),
            torch.from_numpy(plan.image_rows),
            torch.from_numpy(plan.angles),
            torch.from_numpy(plan.flips),
            mean=self.dataset.image_mean,
            std=self.dataset.image_std,
            dtype=DTYPES[self.config.data.dtype],
            interpolation=self.config.data.interpolation,
        )


class WorkerSource:
    """Images from data.workers processes, each of which makes whole batches."""

    replaced = 0

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig) -> None:
        self.images = PlannedImages(dataset, config)
        self.workers = config.data.workers
        self.compute = torch.device("cpu")
        self.description = f"images from {self.workers} DataLoader workers"

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[Tensor]:
        yield from DataLoader(
            self.images,
            batch_size=None,
            sampler=plans,
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
        )
