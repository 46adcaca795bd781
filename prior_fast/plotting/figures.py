"""The common parts of all figures: their style, and writing them."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from prior_fast.files import atomic_path

DPI = 150
DIMMED = 0.65  # brightness of an X-ray under a heat map, so that bright bones do not bleach the colours
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": "#1c2430",
    "axes.grid": False,
    "xtick.color": "#566070",
    "ytick.color": "#566070",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
}
TRAINED, VALIDATED, MARK = "#1f5fa8", "#d1620f", "#19d3e6"


def new_figure(width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches; 10 inches fill the page."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file, whole or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI)


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Show an X-ray [H, W], uint8 or float in [0, 1], without axes."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title)


def show_attention(axes: Axes, image: np.ndarray, attention: np.ndarray, title: str = "") -> None:
    """Show an X-ray uint8 [H, W] under a heat map, scaled from its smallest to its greatest weight, named below it."""
    show_image(axes, DIMMED * image / 255, title)
    low, high = float(attention.min()), float(attention.max())
    strength = (attention - low) / max(high - low, 1e-12)
    colors = matplotlib.colormaps["inferno"](Normalize(0, 1)(strength))
    colors[..., 3] = 0.15 + 0.5 * strength
    axes.imshow(colors)
    axes.set_xlabel(f"weight {low:.3f} to {high:.3f}", labelpad=2, fontsize=8.5)


def outline(axes: Axes, mask: np.ndarray) -> None:
    """Draw the border of a mask bool [H, W]."""
    axes.contour(mask.astype(float), levels=[0.5], colors=MARK, linewidths=1.4)


def wrap(text: str, width: int, lines: int = 4) -> str:
    """`text` in at most `lines` lines of `width` characters."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))
