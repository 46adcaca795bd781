"""The plots of `prior-fast bench kernels`: bars with limits, the roofline, and time over the batch size."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from prior_fast.measure.kernels.rows import PASSES, SHORT, call_of, kind_of
from prior_fast.plotting.figures import STYLE, TRAINED, VALIDATED, new_figure, save

COLORS = {"prior_fast": TRAINED, "reference": "#8a94a0", "scipy": "#8a94a0", "torch.compile": VALIDATED}
OTHER = "#4f9d69"
Rows = list[dict[str, Any]]


def draw(out: Path, report: dict[str, Any]) -> list[str]:
    """Write bars.png, roofline.png and scaling.png to `out`; returns the names of the files that were written.

    There is no roofline without calls of ours, and no scaling without an op of several batch sizes.
    """
    rows: Rows = report["rows"]
    if not rows:
        return []
    with rc_context(STYLE):
        _bars(out / "bars.png", rows)
        written = ["bars.png"]
        if any(row["ours"] for row in rows):
            _roofline(out / "roofline.png", rows, report["ceilings"])
            written.append("roofline.png")
        if _scaling(out / "scaling.png", rows):
            written.append("scaling.png")
    return written


def first_calls(rows: Rows) -> Rows:
    """The rows of the first shape of each kind, which is PRIOR's."""
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(kind(row), row["shape"])
    return [row for row in rows if row["shape"] == first[kind(row)]]


def kind(row: dict[str, Any]) -> str:
    return kind_of(row["op"], row["shape"])


def _bars(path: Path, rows: Rows) -> None:
    """A group of bars for each call of the first shapes; a mark shows each limit."""
    shown = first_calls(rows)
    figure = new_figure(11, 1.2 + 0.24 * len(shown) + 0.12 * len({call_of(row) for row in shown}))
    axes = figure.subplots()
    place, places, names, before = 0.0, [], [], None
    for row in shown:
        place += 1.0 if before in (None, call_of(row)) else 1.5
        before = call_of(row)
        low, high = row["spread"]
        value = row["milliseconds"]
        axes.barh(place, value, color=COLORS.get(row["who"], OTHER), height=0.8)
        axes.errorbar(value, place, xerr=[[max(value - low, 0)], [max(high - value, 0)]], color="#1c2430", linewidth=1)
        axes.plot([row["limit_milliseconds"]] * 2, [place - 0.45, place + 0.45], color="#c0262d", linewidth=2)
        axes.text(max(value, high), place, f"  {value:.3g} ms", va="center", fontsize=8)
        places.append(place)
        names.append(f"{kind(row)}, {PASSES[row['direction']]}, {SHORT[row['dtype']]}: {row['who']}")
    axes.set_yticks(places, names)
    axes.set_ylim(place + 1, 0)
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 3)
    axes.set_xlabel("milliseconds: median and range of the passes; red: this machine's limit")
    axes.set_title("the first shape of each op", loc="left")
    save(figure, path)


def _roofline(path: Path, rows: Rows, ceilings: dict[str, Any]) -> None:
    """Operations/s over operations per byte, a dot for each of our calls, under the measured ceilings."""
    ours = [row for row in rows if row["ours"]]
    intensity = np.array([row["operations"] / row["bytes"] for row in ours])
    figure = new_figure(8, 5)
    axes = figure.subplots()
    span = np.geomspace(min(intensity.min(), 0.1) / 2, max(intensity.max(), 10) * 4, 200)
    for dtype, rate in ceilings["rates"].items():
        roof = np.minimum(span * ceilings["bandwidth"], rate) / 1e9
        axes.plot(span, roof, color="#1c2430", linewidth=1.2, label=f"{SHORT[dtype]}: {rate / 1e9:,.0f} GFLOP/s")
    ops = list(dict.fromkeys(row["op"] for row in ours))
    palette = colormaps["tab20"]
    for number, op in enumerate(ops):
        for direction, marker in (("forward", "o"), ("forward+backward", "^")):
            points = [row for row in ours if row["op"] == op and row["direction"] == direction]
            axes.scatter(
                [row["operations"] / row["bytes"] for row in points],
                [row["operations"] / row["milliseconds"] / 1e6 for row in points],
                color=palette(number % 20),
                marker=marker,
                s=22,
                label=op if direction == "forward" else None,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte (least bytes); circles: forward, triangles: with backward")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"roofline: {ceilings['bandwidth'] / 1e9:,.0f} GB/s copied", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    save(figure, path)


def _scaling(path: Path, rows: Rows) -> bool:
    """Time over the batch size: a panel for each op, a line for each competitor. False if no op has two batch sizes."""
    lines: dict[str, dict[tuple[str, str], Rows]] = {}
    for row in rows:
        if row["axis"] == "batch" and row["dtype"] == rows[0]["dtype"]:
            lines.setdefault(kind(row), {}).setdefault((row["who"], row["direction"]), []).append(row)
    lines = {name: group for name, group in lines.items() if any(len(found) > 1 for found in group.values())}
    if not lines:
        return False
    columns = min(3, len(lines))
    figure = new_figure(3.6 * columns, 2.7 * -(-len(lines) // columns))
    panels = figure.subplots(-(-len(lines) // columns), columns, squeeze=False).ravel()
    for axes, (name, group) in zip(panels, lines.items()):
        _panel(axes, name, group)
    for axes in panels[len(lines) :]:
        axes.set_visible(False)
    save(figure, path)
    return True


def _panel(axes: Axes, title: str, group: dict[tuple[str, str], Rows]) -> None:
    for (who, direction), rows in group.items():
        at = [row["at"] for row in rows]
        style = "-" if direction == "forward" else "--"
        color = COLORS.get(who, OTHER)
        name = who if direction == "forward" else None
        axes.plot(at, [row["milliseconds"] for row in rows], style, color=color, marker="o", markersize=3, label=name)
        if who == "prior_fast":
            axes.plot(at, [row["limit_milliseconds"] for row in rows], style, color="#c0262d", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_title(title, loc="left")
    axes.set_xlabel("batch; dashed: with backward; red: limit")
    axes.set_xticks(sorted({row["at"] for rows in group.values() for row in rows}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylabel("ms")
    axes.legend(fontsize=7)
