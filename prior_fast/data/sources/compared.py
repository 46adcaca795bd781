"""Comparing decoded images with the prepared ones: a file that is damaged, or another one, is not trained on.

Decoders fill in what a damaged JPEG lacks, and report nothing. The prepared image shows what the file should give.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from prior_fast.data.sources.encoded import EncodedImages

# Damage changes whole blocks of the full-size image. The mean difference of a square of 8x8 pixels is below 3 gray
# levels between decoders, also with `prepare --decode fast`.
_CELL, _MOST = 8, 8.0


@dataclass(frozen=True)
class _Found:
    """Which images of a batch differ; `copied` is the end of the copy to the host, None on a CPU."""

    rows: np.ndarray
    different: Tensor
    copied: "torch.cuda.Event | None"


class Comparison:
    """Replaces decoded images that differ from the prepared ones, and counts them.

    On a GPU this costs the host no wait: images are replaced there, and the counts arrive some batches later.
    """

    def __init__(self, encoded: EncodedImages) -> None:
        self.encoded = encoded
        self._found: deque[_Found] = deque()

    def checked(self, decoded: Tensor, prepared: Tensor, rows: np.ndarray) -> Tensor:
        """The decoded images, with the prepared one for each that differs.

        Args:
            decoded, prepared: uint8 [B, H, W] on one device.
            rows: the image rows [B].

        Returns:
            uint8 [B, H, W].
        """
        different = differs(decoded, prepared)
        self._found.append(_on_host(different, rows))
        self.count(wait=False)
        return torch.where(different[:, None, None], prepared, decoded)

    def count(self, wait: bool) -> None:
        """Report the images whose comparison is known; with `wait` all so far."""
        while self._found:
            found = self._found[0]
            if found.copied is not None:
                if not wait and not found.copied.query():
                    return
                found.copied.synchronize()
            self._found.popleft()
            for row in found.rows[found.different.numpy()]:
                self.encoded.was_replaced(int(row), "differs from its prepared image")


def differs(decoded: Tensor, prepared: Tensor) -> Tensor:
    """Whether images uint8 [B, H, W] differ by more than decoders do: bool [B]."""
    differences = (decoded.float() - prepared.float()).abs()
    return avg_pool2d(differences[:, None], _CELL, ceil_mode=True).amax(dim=(1, 2, 3)) > _MOST


def _on_host(different: Tensor, rows: np.ndarray) -> _Found:
    if different.device.type != "cuda":
        return _Found(rows, different, None)
    host = torch.empty(different.shape, dtype=torch.bool, pin_memory=True)
    host.copy_(different, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return _Found(rows, host, copied)
