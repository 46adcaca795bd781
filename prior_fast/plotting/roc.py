"""ROC curves."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from prior_fast.plotting.figures import STYLE, new_figure, save
from prior_fast.plotting.words import label


@matplotlib.rc_context(STYLE)
def draw_roc(truth: np.ndarray, scores: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw an ROC curve for each class against the rest: truth bool [N, C], scores [N, C].

    A class without positives or negatives has no curve; the legend says so.
    """
    figure = new_figure(5.4, 5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="#8a94a0", linewidth=1, label="chance 0.500")
    for index, name in enumerate(classes):
        column = truth[:, index]
        if column.all() or not column.any():
            axes.plot([], [], label=f"{label(name)}: {'no negative' if column.all() else 'no positive'}")
            continue
        false, true, _ = roc_curve(column, scores[:, index])
        axes.plot(false, true, linewidth=1.5, label=f"{label(name)} {roc_auc_score(column, scores[:, index]):.3f}")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", title="AUROC")
    save(figure, path)
