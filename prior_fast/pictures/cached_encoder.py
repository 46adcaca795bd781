"""An encoder that remembers the images it has encoded, so that the sections of the page share them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prior_fast.evaluation.encode import Advance, EmbeddedImages, Encoder
from prior_fast.training.checkpoint import Checkpoint


class CachedEncoder(Encoder):
    """An `Encoder` for the images of one dataset: each row is encoded once."""

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", batch_size: int = 64) -> None:
        super().__init__(checkpoint, device, batch_size)
        self._encoded: dict[int, tuple[Tensor, Tensor]] = {}

    def images(
        self, images: np.ndarray, rows: Sequence[int] | np.ndarray, advance: Advance | None = None
    ) -> EmbeddedImages:
        """As `Encoder.images`; `images` are those of the same dataset in every call."""
        wanted = [int(row) for row in rows]
        new = sorted({row for row in wanted if row not in self._encoded})
        if new:
            encoded = super().images(images, new)
            self._encoded.update(zip(new, zip(encoded.patches, encoded.whole)))
        if advance:
            advance(len(wanted))
        patches, whole = zip(*(self._encoded[row] for row in wanted))
        return EmbeddedImages(torch.stack(patches), torch.stack(whole))
