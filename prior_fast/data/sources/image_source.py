"""The interface of image sources. They turn a stream of plans into a stream of images [B, 1, H, W], in the same order.

Images are rotated, mirrored and normalized. All sources use the same draws and give the same pixels.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from prior_fast.data.batch_plan import BatchPlan

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ImageSource(Protocol):
    """A source of images.

    Attributes:
        description: a short text for the user.
        compute: the device of the images, where the text is best packed too.
    """

    description: str
    compute: torch.device

    @property
    def replaced(self) -> int:
        """The number of images so far that could not be read and were replaced."""
        ...

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[Tensor]:
        """The images of each plan in turn. Plans may be read some batches ahead. Closing it frees its resources."""
        ...
