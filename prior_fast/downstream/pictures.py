"""The pictures of fine-tuned tasks, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from prior_fast.plotting.figures import MARK, STYLE, TRAINED, VALIDATED, new_figure, outline, save, show_image

EXAMPLES = 8  # images of masks.png and boxes.png
COLUMNS = 4
SHOWN_BOXES, SHOWN_SCORE = 3, 0.3  # for each image the boxes with the highest scores, if the score is at least 0.3


@matplotlib.rc_context(STYLE)
def draw_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], selects: str, path: Path) -> None:
    """The training loss and the validation metric over the epochs, a line for each split. A dot marks the best epoch.

    histories: for each split the lines of its log.jsonl.
    """
    figure = new_figure(9, 3)
    left, right = figure.subplots(1, 2)
    for name, history in histories.items():
        epochs = [line["epoch"] for line in history]
        left.plot(epochs, [line["loss"] for line in history], color=TRAINED, alpha=0.6, linewidth=1.2)
        values = [line["validate"][selects] for line in history]
        if any(value is None for value in values):
            continue
        right.plot(epochs, values, color=VALIDATED, alpha=0.6, linewidth=1.2, label=name)
        best = max(index for index, line in enumerate(history) if line["best"])
        right.plot(epochs[best], values[best], "o", color=VALIDATED, markersize=4)
    for axes, title in ((left, "training loss"), (right, f"validation {selects}")):
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, path)


@matplotlib.rc_context(STYLE)
def draw_masks(images: np.ndarray, true: np.ndarray, predicted: np.ndarray, scores: np.ndarray, path: Path) -> None:
    """Draw images uint8 [N, H, W] with the true mask's border and the predicted mask; masks bool [N, H, W]."""

    def draw(axes: Axes, index: int) -> None:
        show_image(axes, images[index], f"Dice {scores[index]:.3f}")
        color = np.zeros((*predicted[index].shape, 4))
        color[predicted[index]] = (0.95, 0.45, 0.1, 0.45)
        axes.imshow(color)
        if true[index].any():
            outline(axes, true[index])

    _grid(len(images), draw, "orange: predicted, outline: true", path)


@matplotlib.rc_context(STYLE)
def draw_boxes(
    images: np.ndarray,
    true: Sequence[np.ndarray],
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    path: Path,
) -> None:
    """Draw images uint8 [N, H, W] with true boxes [K, 4] (x1, y1, x2, y2) and found boxes [D, 4] with their scores
    [D], the highest first."""

    def draw(axes: Axes, index: int) -> None:
        show_image(axes, images[index])
        for box in true[index]:
            _box(axes, box, MARK)
        boxes, scores = found[index]
        for box, score in zip(boxes[:SHOWN_BOXES], scores[:SHOWN_BOXES]):
            if score >= SHOWN_SCORE:
                _box(axes, box, "#f27a1a")
                axes.text(box[0] + 2, box[1] + 2, f"{score:.2f}", color="#f27a1a", fontsize=7, va="top", clip_on=True)

    _grid(
        len(images),
        draw,
        f"orange: found, the {SHOWN_BOXES} with the highest scores from {SHOWN_SCORE} up; blue: true",
        path,
    )


@matplotlib.rc_context(STYLE)
def draw_sweep(points: Sequence[Mapping[str, Any]], metric: str, title: str, path: Path) -> None:
    """The metric's mean over the number of trained blocks, with its standard deviation over the splits."""
    figure = new_figure(5, 3.6)
    axes = figure.subplots()
    drawn = [point for point in points if point["mean"] is not None]
    blocks, means = [point["blocks"] for point in drawn], [point["mean"] for point in drawn]
    errors = [point["std"] or 0.0 for point in drawn]
    axes.errorbar(blocks, means, errors, color=TRAINED, marker="o", markersize=4, capsize=3, linewidth=1.4)
    axes.set_xticks([point["blocks"] for point in points])
    axes.set_xlabel("trained blocks (0: linear layer alone)")
    axes.set_ylabel(metric)
    axes.set_title(title, loc="left")
    save(figure, path)


def _box(axes: Axes, box: np.ndarray, color: str) -> None:
    x1, y1, x2, y2 = (float(value) for value in box)
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1.3))


def _grid(count: int, draw: Any, caption: str, path: Path) -> None:
    """Call `draw(axes, index)` for each of `count` images, in rows of `COLUMNS`."""
    height = max(1, -(-count // COLUMNS))
    figure = new_figure(10, 2.7 * height + 0.4)
    for index, axes in enumerate(figure.subplots(height, COLUMNS, squeeze=False).ravel()):
        if index < count:
            draw(axes, index)
        else:
            axes.set_axis_off()
    figure.suptitle(caption, x=0.01, ha="left", fontsize=9.5)
    save(figure, path)
