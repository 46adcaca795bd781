"""Heat maps over X-rays: an overlay whose opacity grows with the value, on one scale for several images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize

from prior_fast.plotting.sheet import Sheet

RAMP = LinearSegmentedColormap.from_list("ramp", ["#ffd23f", "#ff7b1c", "#d7191c"])
OPAQUE, POWER = 0.75, 0.6  # opacity of the greatest value; it rises fast, since one image may have a far greater value
GRAY = 0.35  # brightness of a lung; the colour bar shows the colours as they look over it
STEP = 0.05  # limits of a scale are multiples of it
NARROWEST = 0.1  # of a scale: differences far smaller than this must not look great


@dataclass(frozen=True)
class Scale:
    """The values at which an overlay is invisible (and below) and strongest (and above), and what they are."""

    low: float
    high: float
    label: str

    def strength(self, values: np.ndarray) -> np.ndarray:
        """The values as shares of the way from low to high, in [0, 1]."""
        return np.clip((values - self.low) / (self.high - self.low), 0, 1)


def common_scale(values: Sequence[np.ndarray], label: str, most: float) -> Scale:
    """One scale for all the maps, from their smallest to their greatest value, which lie in [0, most].

    The limits are rounded outward to multiples of `STEP` and are at least `NARROWEST` apart.
    """
    # A rounding error must not move a limit by a whole step.
    low = np.floor(min(float(each.min()) for each in values) / STEP + 1e-4) * STEP
    high = np.ceil(max(float(each.max()) for each in values) / STEP - 1e-4) * STEP
    low = max(0.0, min(low, most - NARROWEST))
    return Scale(round(low, 6), round(min(most, max(high, low + NARROWEST)), 6), label)


def blend(gray: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Colours of strengths in [0, 1] over gray values in [0, 1], both [...]: [..., 3]."""
    opacity = OPAQUE * strength[..., None] ** POWER
    # Rounding may exceed white.
    return np.minimum((1 - opacity) * gray[..., None] + opacity * RAMP(strength)[..., :3], 1)


def show_overlay(sheet: Sheet, row: int, column: int, image: np.ndarray, values: np.ndarray, scale: Scale) -> None:
    """Show an X-ray uint8 [H, W] under the overlay of values [H, W], with a cross at their maximum."""
    sheet.image(row, column, blend(image / 255, scale.strength(values)))
    sheet.cross(row, column, maximum(values))


def show_scale(sheet: Sheet, rows: Sequence[int], scale: Scale) -> None:
    """Show the scale of some rows as a colour bar."""
    shown = blend(np.full(256, GRAY), np.linspace(0, 1, 256))
    sheet.bar(rows, Normalize(scale.low, scale.high), ListedColormap(shown), scale.label)


def maximum(values: np.ndarray) -> tuple[float, float]:
    """The place of the greatest value of [H, W], x and y as shares of the width and the height.

    At the image's border an enlarged map is constant over half a patch: the place is the middle of the equal values
    around the first of them.
    """
    height, width = values.shape
    rows, columns = np.nonzero(values == values.max())
    near = (np.abs(rows - rows[0]) < height / 8) & (np.abs(columns - columns[0]) < width / 8)
    return float(columns[near].mean() + 0.5) / width, float(rows[near].mean() + 0.5) / height
