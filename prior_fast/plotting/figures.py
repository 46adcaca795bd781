"""The common parts of all figures: their style, and writing them."""

import warnings
from pathlib import Path
from typing import Any

import matplotlib as matplotlib  # for modules that draw with STYLE
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prior_fast.files import atomic_path
from prior_fast.plotting.words import label

DPI = 150
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
    # `prior_fast.plotting.words` writes for these, whatever the user's own style is.
    "text.parse_math": True,
    "text.usetex": False,
}
TRAINED, VALIDATED, MARK = "#1f5fa8", "#d1620f", "#19d3e6"
RIGHT, WRONG, PLAIN, FAINT = "#1b7f4d", "#b3261e", "#1c2430", "#566070"


def new_figure(width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches; 10 inches fill the page."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file, whole or not at all."""
    with atomic_path(path) as partial, warnings.catch_warnings():
        # An emoji in a report is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(partial, format="png", dpi=DPI, pil_kwargs={"compress_level": 4})


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Show an X-ray [H, W], uint8 or float in [0, 1], without axes."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(label(title))


def outline(axes: Axes, mask: np.ndarray) -> None:
    """Draw the border of a mask bool [H, W]."""
    axes.contour(mask.astype(float), levels=[0.5], colors=MARK, linewidths=1.4)
