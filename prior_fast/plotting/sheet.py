"""A sheet of X-rays in rows and columns, all of one size, with titles, outlines and a colour bar.

One axes has the whole sheet: a grid of axes takes several times as long to lay out and draw.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from prior_fast.plotting.figures import DPI, FAINT, MARK, PLAIN, save
from prior_fast.plotting.words import no_formula

LABEL = 34  # pixels to the left of the first column, for the rows' names
BAR, BAR_SPACE, BAR_TEXT = 26, 18, 112  # pixels of a colour bar, before it and after it
LINE = 24  # pixels of a line of text
GAP = 12  # pixels between cells


class Sheet:
    """A grid of cells, filled one by one, then saved.

    columns: the number of columns.
    above, below: for each row the number of lines of text above and below its cells.
    cell: pixels of a cell's side; 224 shows each pixel of an image as it is.
    bar: whether there is space for colour bars on the right.
    """

    def __init__(
        self, columns: int, above: Sequence[int], below: Sequence[int], cell: int = 224, bar: bool = False
    ) -> None:
        self.cell = cell
        self._tops, top = [], GAP
        for lines, after in zip(above, below):
            top += lines * LINE
            self._tops.append(top)
            top += cell + after * LINE + GAP
        self._right = LABEL + columns * (cell + GAP)
        self.width = self._right + (BAR_SPACE + BAR + BAR_TEXT if bar else 0)
        self.height = top + GAP
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI))
        self._axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._axes.set_axis_off()

    def image(self, row: int, column: int, pixels: np.ndarray) -> None:
        """Show an image: uint8 or float in [0, 1], [H, W] gray or [H, W, 3]."""
        x, y = self._corner(row, column)
        highest = 255 if pixels.dtype == np.uint8 else 1
        self._axes.imshow(
            pixels,
            cmap="gray",
            vmin=0,
            vmax=highest,
            extent=(x, x + self.cell, y + self.cell, y),
            aspect="auto",
            interpolation="nearest" if self.cell == pixels.shape[0] else "bilinear",
        )

    def outline(self, row: int, column: int, mask: np.ndarray, color: str = MARK) -> None:
        """Draw the border of a mask bool [H, W]."""
        x, y = self._corner(row, column)
        rows, columns = ((np.arange(size) + 0.5) * self.cell / size for size in mask.shape)
        self._axes.contour(x + columns, y + rows, mask.astype(float), levels=[0.5], colors=color, linewidths=1.4)

    def cross(self, row: int, column: int, place: tuple[float, float]) -> None:
        """Mark a place, x and y as shares of the image, by a white cross with a dark edge."""
        x, y = self._corner(row, column)
        (cross,) = self._axes.plot(x + place[0] * self.cell, y + place[1] * self.cell, "+", color="white")
        cross.set(markersize=10, markeredgewidth=1.8)
        cross.set_path_effects([effects.withStroke(linewidth=3.6, foreground="black")])

    def above(self, row: int, column: int, text: str) -> None:
        """Write above a cell."""
        x, y = self._corner(row, column)
        self._text(x + self.cell / 2, y - 4, text, va="bottom")

    def below(self, row: int, column: int, text: str) -> None:
        """Write below a cell."""
        x, y = self._corner(row, column)
        self._text(x + self.cell / 2, y + self.cell + 3, text, va="top", fontsize=8.5)

    def inside(self, row: int, column: int, text: str) -> None:
        """Write into an empty cell."""
        x, y = self._corner(row, column)
        self._text(x + self.cell / 2, y + self.cell / 2, text, va="center", color=FAINT)

    def name(self, row: int, text: str, color: str = PLAIN, weight: str = "normal") -> None:
        """Name a row, at its left."""
        y = self._tops[row] + self.cell / 2
        self._text(LABEL / 2, y, text, va="center", rotation=90, color=color, fontweight=weight)

    def bar(self, rows: Sequence[int], norm: Normalize, colors: Colormap, label: str) -> None:
        """A colour bar beside some rows."""
        top, bottom = self._tops[rows[0]], self._tops[rows[-1]] + self.cell
        left = (self._right + BAR_SPACE) / self.width
        place = (left, 1 - bottom / self.height, BAR / self.width, (bottom - top) / self.height)
        self.figure.colorbar(ScalarMappable(norm, colors), cax=self.figure.add_axes(place), label=label)

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        self._axes.set_xlim(0, self.width)
        self._axes.set_ylim(self.height, 0)
        save(self.figure, path)

    def _corner(self, row: int, column: int) -> tuple[int, int]:
        return LABEL + column * (self.cell + GAP), self._tops[row]

    def _text(self, x: float, y: float, text: str, **style: object) -> None:
        style = {"ha": "center", "fontsize": 9.5, "color": PLAIN, **style}
        self._axes.text(x, y, no_formula(text), **style)  # type: ignore[arg-type]
