"""Pictures of retrieval: queries with their best candidates, marked right or wrong by class."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from prior_fast.plotting.figures import PLAIN, RIGHT, STYLE, WRONG, new_figure, save, show_image
from prior_fast.plotting.words import label, no_formula, wrap

WIDTH, LINES = 40, 17  # size of a report in its cell, in characters and lines


@dataclass(frozen=True)
class Found:
    """Some queries and the best candidates of each.

    Attributes:
        queries: int64 [Q], numbers of the queries.
        best: int64 [Q, K], numbers of the candidates, the best first.
        truth: int64 [Q], the class of each query.
        classes: int64 [Q, K], the class of each candidate.
        names: the names of the classes.
    """

    queries: np.ndarray
    best: np.ndarray
    truth: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]


def draw_retrieved_reports(found: Found, images: np.ndarray, rows: np.ndarray, texts: list[str], path: Path) -> None:
    """Draw each query, an X-ray, with its best reports beside it.

    images uint8 [., 224, 224]; rows int64 [N], the row of each query's image; texts: the candidates.
    """

    def query(axes: Axes, number: int, title: str) -> None:
        show_image(axes, np.asarray(images[rows[number]]), title)

    def candidate(axes: Axes, number: int, color: str) -> None:
        _show_text(axes, texts[number], color)

    _draw(found, query, candidate, path)


def draw_retrieved_images(found: Found, images: np.ndarray, rows: np.ndarray, texts: list[str], path: Path) -> None:
    """Draw each query, a report, with its best X-rays beside it.

    images uint8 [., 224, 224]; rows int64 [N], the row of each candidate's image; texts: the queries.
    """

    def query(axes: Axes, number: int, title: str) -> None:
        _show_text(axes, texts[number], PLAIN)
        axes.set_title(label(title))

    def candidate(axes: Axes, number: int, color: str) -> None:
        show_image(axes, np.asarray(images[rows[number]]))
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(color)
        axes.spines[:].set_linewidth(2.5)

    _draw(found, query, candidate, path)


@matplotlib.rc_context(STYLE)
def _draw(
    found: Found,
    query: Callable[[Axes, int, str], None],
    candidate: Callable[[Axes, int, str], None],
    path: Path,
) -> None:
    """query(axes, number, title) and candidate(axes, number, color) each fill one cell."""
    height, width = found.best.shape
    figure = new_figure(2.6 * (width + 1), 2.75 * height)
    for line, axes in enumerate(figure.subplots(height, width + 1, squeeze=False)):
        own = found.names[found.truth[line]]
        query(axes[0], int(found.queries[line]), f"query: {own}")
        for place in range(width):
            right = found.classes[line, place] == found.truth[line]
            color = RIGHT if right else WRONG
            candidate(axes[place + 1], int(found.best[line, place]), color)
            title = f"{place + 1}: {'right' if right else 'wrong'}, {found.names[found.classes[line, place]]}"
            axes[place + 1].set_title(label(title), color=color)
    save(figure, path)


def _show_text(axes: Axes, text: str, color: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(color)
    shown = no_formula(wrap(text, WIDTH, LINES))
    axes.text(0.03, 0.96, shown, transform=axes.transAxes, va="top", fontsize=7.2, in_layout=False)
