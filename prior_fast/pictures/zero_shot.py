"""Pictures of zero-shot classification: ROC curves and the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from prior_fast.pictures.figures import STYLE, new_figure, save


@matplotlib.rc_context(STYLE)
def draw_roc(truth: np.ndarray, scores: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """An ROC curve for each class against the rest: truth bool [N, C], scores [N, C].

    A class without positives or negatives has none, which the legend says.
    """
    figure = new_figure(5.4, 5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="#8a94a0", linewidth=1, label="chance 0.500")
    for index, name in enumerate(classes):
        column = truth[:, index]
        if column.all() or not column.any():
            axes.plot([], [], label=f"{name}: {'no negative' if column.all() else 'no positive'}")
            continue
        false, true, _ = roc_curve(column, scores[:, index])
        axes.plot(false, true, linewidth=1.5, label=f"{name} {roc_auc_score(column, scores[:, index]):.3f}")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", title="AUROC")
    save(figure, path)


@matplotlib.rc_context(STYLE)
def draw_confusion(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """The confusion matrix int64 [C, C], rows true: each cell its count, coloured by its share of the row."""
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
    axes.set_xticks(range(size), classes, rotation=25, ha="right")
    axes.set_yticks(range(size), classes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    save(figure, path)
