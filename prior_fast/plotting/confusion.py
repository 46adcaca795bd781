"""The confusion matrix of zero-shot classification."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from prior_fast.plotting.figures import STYLE, new_figure, save
from prior_fast.plotting.words import label

NAME = 40  # characters of a class


@matplotlib.rc_context(STYLE)
def draw_confusion(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix int64 [C, C], rows true. A cell shows its count, its colour the share of the row."""
    size = len(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new_figure(2.6 + 0.85 * size, 1.6 + 0.65 * size)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(size):
        for column in range(size):
            color = "white" if shares[row, column] > 0.55 else "#1c2430"
            text = f"{counts[row, column]}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8.5)
    names = [label(name, NAME) for name in classes]
    axes.set_xticks(range(size), names, rotation=25, ha="right")
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    save(figure, path)
