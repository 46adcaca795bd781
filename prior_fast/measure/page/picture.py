"""One picture of the ladder, the loader and the ops, from the result files of one machine."""

import json
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes

from prior_fast.errors import UsageError
from prior_fast.measure.kernels.rows import PASSES, kind_of
from prior_fast.measure.page.kinds import machine, pairs
from prior_fast.plotting.figures import STYLE, TRAINED, VALIDATED, new_figure, save

GRAY = "#c3cad3"
MOST_OPS = 14
Report = dict[str, Any]


def draw_picture(train: Path, loader: Path, kernels: Path, out: Path) -> None:
    """Write a PNG file with three panels.

    Raises:
        UsageError: a result file can't be read, or is of another kind.
    """
    reports = [_read(path, key) for path, key in ((train, "rungs"), (loader, "rows"), (kernels, "rows"))]
    with rc_context(STYLE):
        figure = new_figure(13, 4.6)
        ladder, sources, ops = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
        try:
            _ladder(ladder, reports[0])
            _sources(sources, reports[1])
            _ops(ops, reports[2])
        except (KeyError, TypeError) as error:
            raise UsageError(f"one of {train}, {loader} and {kernels} is a report of another kind: {error!r}") from None
        figure.suptitle(machine(reports[0])[0], x=0.01, ha="left", fontsize=8.5, color="#566070")
        save(figure, out)


def _read(path: Path, key: str) -> Report:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not report[key]:
            raise UsageError(f"{path} has no measured row")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no report of this kind: {error!r}") from None
    return report


def _ladder(axes: Axes, report: Report) -> None:
    rows = [row for row in report["rungs"] if "milliseconds" in row]
    pairs_per_second = [row["pairs_per_second"] for row in rows]
    colors = [GRAY, *[TRAINED] * (len(rows) - 1)]
    axes.barh(range(len(rows)), pairs_per_second, color=colors, height=0.65)
    for place, row in enumerate(rows):
        axes.text(row["pairs_per_second"], place, f"  {row['speedup']:.2f}x", va="center", fontsize=8.5)
    options = report["options"]
    width = "" if options["width_divisor"] == 1 else f", widths / {options['width_divisor']}"
    _finish(axes, [f"({row['key']}) {row['name']}" for row in rows], "pairs/s", max(pairs_per_second))
    axes.set_title(f"a step of stage {options['stage']}, {options['preset']}{width}", loc="left")


def _sources(axes: Axes, report: Report) -> None:
    rows = report["rows"]
    rates = [row["pairs_per_second"] for row in rows]
    colors = [GRAY if "torchvision" in row["source"] else TRAINED for row in rows]
    axes.barh(range(len(rows)), rates, color=colors, height=0.65)
    for place, rate in enumerate(rates):
        axes.text(rate, place, f"  {rate:,.0f}", va="center", fontsize=8.5)
    names = [row["source"].replace(", ", ",\n") for row in rows]
    _finish(axes, names, "pairs/s", max(rates))
    axes.set_title("the loader", loc="left")


def _ops(axes: Axes, report: Report) -> None:
    """The time of the fastest competitor over ours, at the first shape of each op and pass."""
    first: dict[str, tuple[str, float]] = {}
    for ours, other in pairs(report):
        name = f"{kind_of(ours['op'], ours['shape'])}, {PASSES[ours['direction']]}"
        shape, times = first.get(name, (ours["shape"], float("inf")))
        if shape == ours["shape"]:
            first[name] = shape, min(times, other["milliseconds"] / ours["milliseconds"])
    shown = list(first.items())[:MOST_OPS]
    values = [times for _, (_, times) in shown]
    axes.barh(range(len(shown)), values, color=[TRAINED if v >= 1 else VALIDATED for v in values], height=0.65)
    for place, value in enumerate(values):
        axes.text(value, place, f"  {value:.2f}x", va="center", fontsize=8.5)
    axes.axvline(1, color="#1c2430", linewidth=1)
    _finish(axes, [name for name, _ in shown], "time of the fastest competitor over ours", max(values))
    axes.set_title("ops that have a competitor", loc="left")


def _finish(axes: Axes, names: list[str], label: str, most: float) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.22)
    axes.set_xlabel(label)
