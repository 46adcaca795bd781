"""A batch of four pairs."""

import numpy as np
import torch

from prior_fast.batch import PackedBatch, pack_reports

LENGTHS = (3, 1, 5, 4)  # sentences of each report


def four_pairs(rng: np.random.Generator) -> PackedBatch:
    """Four pairs with float64 images, and tokens of a vocabulary of 50."""
    reports = [[rng.integers(5, 50, rng.integers(1, 9)) for _ in range(n)] for n in LENGTHS]
    images = torch.tensor(rng.normal(size=(len(LENGTHS), 1, 224, 224)))
    numbers = torch.arange(len(LENGTHS))
    return pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)
