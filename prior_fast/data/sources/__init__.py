"""Where the images of a batch come from: one file per source, all with the same interface and the same draws.

A source turns a stream of plans into a stream of images [B, 1, H, W], rotated, mirrored and normalized, in the same
order. `open_source` picks one by `data.source`.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from prior_fast.data.plan import BatchPlan, LoaderConfig
from prior_fast.data.store import PreparedDataset

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ImageSource(Protocol):
    """A source of images.

    Attributes:
        description: in a few words, for the user.
        compute: where the images are when they come, and so where the text is best packed.
    """

    description: str
    compute: torch.device

    @property
    def replaced(self) -> int:
        """Images that could not be read and were replaced, so far."""
        ...

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[Tensor]:
        """The images of each plan in turn; plans may be taken some batches ahead. Closing it leaves nothing behind."""
        ...


def open_source(dataset: PreparedDataset, config: LoaderConfig, device: torch.device) -> ImageSource:
    """The source that `config.data.source` names, for training on `device`.

    Raises:
        UsageError: the source is not installed, or its settings do not fit the machine.
    """
    name = config.data.source
    if name == "memory":
        from prior_fast.data.sources.memory import MemorySource

        return MemorySource(dataset, config, device)
    if name == "workers":
        from prior_fast.data.sources.workers import WorkerSource

        return WorkerSource(dataset, config)
    if config.data.jpegs:
        from prior_fast.data.sources.jpegs import JpegSource

        return JpegSource(dataset, config, device)
    from prior_fast.data.sources.dali import DaliSource

    return DaliSource(dataset, config, device)
