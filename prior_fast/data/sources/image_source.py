"""What a source of images is: it turns a stream of plans into a stream of images [B, 1, H, W], in the same order.

Images come rotated, mirrored and normalized. All sources make the same draws and give the same pixels.
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
