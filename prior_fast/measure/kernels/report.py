"""Output of `prior-fast bench kernels`: a printed table, kernels.md and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prior_fast.console import stdout
from prior_fast.errors import RunError
from prior_fast.measure.kernels.rows import PASSES, SHORT, call_of, times_ours
from prior_fast.tables import markdown_table, plain_table, without_repeats

HEADER = (
    "op and shape", "dtype", "pass", "who", "us", "spread", "times ours", "spread", "limit us", "of limit", "by",
    "binds", "launches",
)  # fmt: skip
TEXT_COLUMNS = (0, 1, 2, 3, 10, 11)
NOTES = (
    "us: median of the passes' medians, spread: the least and the greatest of them; competitors take turns in a pass.",
    "times ours: its time over that of prior_fast, pass by pass: their median and range; more than 1 is slower.",
    "limit us: bytes over this machine's measured speed of copying, or operations over its measured rate of products, "
    "the larger of the two, which `by` names; of limit: that over the median.",
    "binds: memory or arithmetic, the call is near that limit; cache: faster than memory allows; host: starting it "
    "takes as long; neither: far from all.",
    "launches: Triton kernels of our call on a GPU.",
    "Every timed call was first compared with the reference in float64.",
)


def show(report: dict[str, Any], out: Path | None, ops: Sequence[str] = ()) -> None:
    """Print the table of `ops` (all if empty); write kernels.md and the plots of all ops to `out`.

    Raises:
        RunError: a call of `ops` computes a wrong result; raised after everything is written.
    """
    title = describe(report)
    mine = {
        "rows": [row for row in report["rows"] if not ops or row["op"] in ops],
        "left_out": [entry for entry in report["left_out"] if not ops or {*entry["ops"]} & {*ops}],
    }
    stdout.print(f"{title}\n", *text_table(mine["rows"]), "", *NOTES, sep="\n", markup=False)
    for words in left_out(mine):
        stdout.print(f"left out: {words}", markup=False)
    if out is not None:
        from prior_fast.files import write_text
        from prior_fast.measure.kernels.plots import draw

        plots = draw(out, report)
        write_text(out / "kernels.md", markdown(title, report, plots))
        stdout.print(f"kernels.json, kernels.md and {', '.join(plots) or 'no plot'} are in {out}")
    if report["unfinished"]:
        stdout.print(unfinished(report))
    problems = [words for words in report["problems"] if not ops or words.split()[0] in ops]
    if problems:
        others = f"; {len(problems) - 1} more calls too" if len(problems) > 1 else ""
        raise RunError(f"not timed, since it does not compute what it should: {problems[0]}{others}")


def unfinished(report: dict[str, Any]) -> str:
    """A line that names the ops that were not measured in all passes."""
    return f"not complete: {', '.join(report['unfinished'])}"


def describe(report: dict[str, Any]) -> str:
    """What was measured and the machine's measured ceilings, in one line."""
    ceilings, machine = report["ceilings"], report["machine"]
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {SHORT[name]}" for name, rate in ceilings["rates"].items())
    where = machine["processor"] if report["options"]["device"] == "cpu" else ceilings["name"]
    threads = f", {machine['threads']} threads" if report["options"]["device"] == "cpu" else ""
    return f"kernels on {where}{threads}: measured ceilings {ceilings['bandwidth'] / 1e9:,.0f} GB/s, {rates}"


def left_out(report: dict[str, Any]) -> list[str]:
    """A line for each competitor or call that was not timed: which, at which ops, and why."""
    return [f"{entry['who']} ({', '.join(entry['ops'])}): {entry['reason']}" for entry in report["left_out"]]


def table_cells(row: dict[str, Any], ours: dict[str, Any] | None) -> tuple[str, ...]:
    """A row's cells under `HEADER`; ours: the row of prior_fast at the same call, None if there is none."""
    low, high = (1e3 * value for value in row["spread"])
    times = None if ours is None or row["ours"] else times_ours(row, ours)
    who = f"{row['who']} ({row['backend']})" if row["ours"] else row["who"]
    return (
        f"{row['op']} {row['shape']}",
        SHORT[row["dtype"]],
        PASSES[row["direction"]],
        who,
        f"{1e3 * row['milliseconds']:,.1f}",
        f"{low:,.1f} to {high:,.1f}",
        "-" if times is None else f"{times.median:.2f}",
        "-" if times is None else "{:.2f} to {:.2f}".format(*times.spread),
        f"{1e3 * row['limit_milliseconds']:,.1f}",
        f"{row['share_of_limit']:.0%}",
        row["limit_by"],
        row["binds"],
        "-" if row["launches"] is None else str(row["launches"]),
    )


def all_cells(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of all rows."""
    ours = {call_of(row): row for row in rows if row["ours"]}
    return [table_cells(row, ours.get(call_of(row))) for row in rows]


def text_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table's lines for a terminal; a repeated shape is left blank."""
    return plain_table(HEADER, without_repeats(all_cells(rows)), TEXT_COLUMNS)


def markdown(title: str, report: dict[str, Any], plots: Sequence[str]) -> str:
    """The table, its notes, the limits of other chips and the plots as Markdown."""
    rows = report["rows"]
    lines = [f"# {title}", "", *markdown_table(HEADER, all_cells(rows), TEXT_COLUMNS)]
    lines += ["", *(f"- {note}" for note in NOTES)]
    lines += [f"- Left out: {words}" for words in left_out(report)]
    lines += [f"- **Not timed**: {problem}" for problem in report["problems"]]
    lines += [f"- **{unfinished(report)}**"] if report["unfinished"] else []
    ours = [row for row in rows if row["ours"]]
    if ours:
        chips = list(ours[0]["chip_limits_milliseconds"])
        lines += ["", "## The least time on other chips", "", "Computed from data sheets, in us; not measured.", ""]
        least = [
            (*table_cells(row, None)[:3], *(f"{1e3 * row['chip_limits_milliseconds'][chip]:.2f}" for chip in chips))
            for row in ours
        ]
        lines += markdown_table(("op and shape", "dtype", "pass", *chips), least, (0, 1, 2))
    lines += ["", *(f"![{name}]({name})" for name in plots)]
    return "\n".join([*lines, ""])
