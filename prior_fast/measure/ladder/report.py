"""Output of a run of the ladder: rows of train.json, tables and a bar plot."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prior_fast.measure.ladder.measure import Measured, slower_than_before
from prior_fast.measure.ladder.rungs import LADDER
from prior_fast.tables import markdown_table, plain_table

HEADER = (
    "rung", "ms", "quartiles", "pairs/s", "times (a)", "CPU time", "ops", "head ops", "of (a)'s", "host reads",
    "peak MB", "note",
)  # fmt: skip


def make_rows(results: Sequence[Measured], pairs: int, skipped: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each rung, in order. Ratios are (a) divided by the rung; higher is better.

    skipped: the reason for each rung that was left out, by letter. The row of such a rung, or of one that failed, has a
        key, a name and a note.
    """
    timed = [result for result in results if not result.problem]
    rows: list[dict[str, Any]] = [
        {"key": result.rung.key, "name": result.rung.name, "note": result.problem, "trace": result.trace}
        for result in results
        if result.problem
    ]
    first = results[0]
    for result, faster in zip(timed, slower_than_before(timed)):
        row: dict[str, Any] = {
            "key": result.rung.key,
            "name": result.rung.name,
            "milliseconds": result.median * 1e3,
            "quartiles": [value * 1e3 for value in result.quartiles],
            "steps": [value * 1e3 for value in result.seconds],
            "pairs_per_second": pairs / result.median,
            "speedup": first.median / result.median,
            "speedup_of_least": min(first.seconds) / min(result.seconds),
            "cpu_speedup": middle(first.cpu_seconds) / middle(result.cpu_seconds),
            "cpu_milliseconds": middle(result.cpu_seconds) * 1e3,
            "differences": result.differences,
            "compiled_differences": result.compiled_differences,
            "warm_up_seconds": result.warm_up_seconds,
            "peak_bytes": result.peak_bytes,
            "note": f"slower than ({faster.key})" if faster else "",
        }
        if result.counts is not None:
            row |= dataclasses.asdict(result.counts)
            if first.counts is not None:
                row["head_ops_ratio"] = first.counts.head_ops / result.counts.head_ops
        rows.append(row)
    names = {rung.key: rung.name for rung in LADDER}
    rows += [{"key": key, "name": names[key], "note": note} for key, note in skipped.items()]
    return sorted(rows, key=lambda row: row["key"])


def middle(values: Sequence[float]) -> float:
    """The median, or the clock's resolution if that is larger."""
    return max(sorted(values)[len(values) // 2], 1e-9)


def table_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row's cells under `HEADER`; "-" for what was not measured."""
    name = f"({row['key']}) {row['name']}"
    if "milliseconds" not in row:
        return (name, *["-"] * (len(HEADER) - 2), row["note"])
    low, high = row["quartiles"]
    peak = row["peak_bytes"]
    return (
        name,
        f"{row['milliseconds']:.1f}",
        f"{low:.1f} to {high:.1f}",
        f"{row['pairs_per_second']:.1f}",
        f"{row['speedup']:.2f}",
        f"{row['cpu_speedup']:.2f}",
        *(f"{row[name]:,}" if name in row else "-" for name in ("ops", "head_ops")),
        f"1/{row['head_ops_ratio']:.1f}" if "head_ops_ratio" in row else "-",
        str(row.get("reads", "-")),
        "-" if peak is None else f"{peak / 1e6:,.0f}",
        row["note"],
    )


def text_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table's lines for a terminal."""
    return plain_table(HEADER, [table_cells(row) for row in rows], (0, len(HEADER) - 1))


def markdown(title: str, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    """The table as Markdown, with its notes."""
    table = markdown_table(HEADER, [table_cells(row) for row in rows], (0, len(HEADER) - 1))
    return "\n".join([f"# {title}", "", *table, "", *(f"- {note}" for note in notes), ""])


def draw(path: Path, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write a PNG file with a bar for each rung: milliseconds, and how many times faster than (a) it is."""
    from prior_fast.files import atomic_path
    from prior_fast.plotting.figures import DPI, STYLE, TRAINED, VALIDATED, matplotlib, new_figure

    shown = [row for row in rows if "milliseconds" in row]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8, 0.9 + 0.42 * len(shown))
        axes = figure.subplots()
        for number, row in enumerate(shown):
            low, high = row["quartiles"]
            value = row["milliseconds"]
            spread = [[max(value - low, 0)], [max(high - value, 0)]]
            axes.barh(number, value, color=VALIDATED if row["note"] else TRAINED, height=0.62)
            axes.errorbar(value, number, xerr=spread, color="#1c2430", linewidth=1, capsize=2)
            axes.text(max(value, high), number, f"  {value:,.0f} ms, {row['speedup']:.2f}x", va="center", fontsize=8.5)
        axes.set_yticks(range(len(shown)), [f"({row['key']}) {row['name']}" for row in shown])
        axes.invert_yaxis()
        axes.set_xlim(0, max(max(row["milliseconds"], row["quartiles"][1]) for row in shown) * 1.25)
        axes.set_xlabel("milliseconds a step: median and quartiles; orange: slower than a rung before")
        axes.set_title(title, loc="left")
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=DPI, format="png")
