"""The three Dice scores that papers on chest X-rays report, from pixel counts.

Dice of a predicted and a true set of pixels is 2 |P and T| / (|P| + |T|).
"""

import numpy as np

from prior_fast.downstream.task import Measured

SIDE = 224
THRESHOLD = 0.5

FORMULAS: dict[str, str] = {
    "dice_positives": "mean over the images with a mask of 2 |P and T| / (|P| + |T|) (PRIOR, whose folds hold no "
    "others)",
    "dice_all": "the same over all images, where one without a mask counts 1 if nothing is predicted, else 0 (MGCA)",
    "mdice": "mean of the foreground's and the background's 2 |P and T| / (|P| + |T|), each over the pixels of all "
    "images together (BenchX)",
}


def image_dice(counts: np.ndarray) -> np.ndarray:
    """Dice of each image: counts int64 [N, 3] (pixels in both, predicted, true) -> float64 [N].

    An image without a true pixel has 1 if no pixel is predicted, else 0.
    """
    both, predicted, true = counts.astype(np.float64).T
    return np.where(true == 0, predicted == 0, 2 * both / np.maximum(predicted + true, 1))


def dice_metrics(counts: np.ndarray) -> Measured:
    """The scores of `FORMULAS`, and the share of images without a mask whose prediction is empty ("empty_right").

    counts: int64 [N, 3], for each image its pixels in both sets, predicted, and true.
    """
    scores, positive = image_dice(counts), counts[:, 2] > 0
    notes = {}
    values: dict[str, float | None] = {
        "dice_positives": float(scores[positive].mean()) if positive.any() else None,
        "dice_all": float(scores.mean()) if len(scores) else None,
        "mdice": mean_dice(counts),
        "empty_right": None if positive.all() else float(scores[~positive].mean()),
    }
    if not positive.any():
        notes["dice_positives"] = "no image with a mask"
    if positive.all():
        notes["empty_right"] = "no image without a mask"
    if values["mdice"] is None:
        notes["mdice"] = "the foreground or the background is empty, in truth and prediction"
    return Measured(values, notes)


def mean_dice(counts: np.ndarray) -> float | None:
    """The mean Dice of foreground and background over all pixels; None if one is empty in truth and prediction."""
    both, predicted, true = (int(total) for total in counts.sum(axis=0))
    pixels = len(counts) * SIDE * SIDE
    outside = pixels - predicted - true + both
    sides = [(both, predicted + true), (outside, 2 * pixels - predicted - true)]
    if any(total == 0 for _, total in sides):
        return None
    return sum(2 * overlap / total for overlap, total in sides) / 2
