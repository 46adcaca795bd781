"""Opening the source of images that `data.source` names."""

import torch

from prior_fast.data.batch_plan import LoaderConfig
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.image_source import ImageSource


def open_image_source(dataset: PreparedDataset, config: LoaderConfig, device: torch.device) -> ImageSource:
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
