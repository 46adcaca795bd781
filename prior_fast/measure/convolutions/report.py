"""Output of `prior-fast bench convolutions`: convolutions.json, which grows during the run, and tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prior_fast.console import stdout
from prior_fast.errors import RunError
from prior_fast.files import write_json, write_text
from prior_fast.measure.kernels.rows import SHORT
from prior_fast.measure.roofline import Ceilings, better, limits
from prior_fast.tables import markdown_table, plain_table, without_repeats

NAME = "convolutions.json"
HEADER = (
    "convolution", "where", "count", "direction", "ms", "spread", "x count", "TFLOP/s", "GFLOP", "MB", "limit ms",
    "of limit", "by", "binds",
)  # fmt: skip
TEXT_COLUMNS = (0, 1, 3, 12, 13)
TOTALS = ("part", "direction", "convolutions", "ms of a step", "limit ms", "of limit", "TFLOP", "TFLOP/s")
NOTES = (
    "ms: of one call, median of the passes' medians; spread: the least and the greatest of them; x count: time of all "
    "such calls in a step.",
    "GFLOP: additions and multiplications of one call; MB: data that it must read or write once.",
    "limit ms: bytes over this machine's measured speed of copying, or operations over its measured rate of products, "
    "the larger of the two, which `by` names; of limit: that over the median.",
    "binds: memory or arithmetic, the call is near that limit; cache: faster than memory allows; host: starting it "
    "takes as long; neither: far from all.",
    "Gradients of biases are not included.",
    "Every timed call was first compared with float64.",
)


class Sheet:
    """A result file that grows during a run.

    `complete` is false until all convolutions were measured in all passes; `unfinished` names the others.

    Args:
        out: the folder; None writes no file.
    """

    def __init__(self, out: Path | None, machine: dict[str, Any], options: dict[str, Any], ceilings: Ceilings) -> None:
        self.path = None if out is None else out / NAME
        self.machine, self.options, self.ceilings = machine, options, ceilings
        self.complete = False
        self.unfinished: list[str] = []
        self.problems: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._expected: dict[str, dict[str, int]] = {}

    def expect(self, name: str, modules: Iterable[str], operations: int) -> None:
        """Announce a convolution to measure; `operations` are those of all its directions in one module."""
        self.unfinished.append(name)
        for part in map(part_of, modules):
            expected = self._expected.setdefault(part, {"convolutions": 0, "operations": 0})
            expected["convolutions"] += 1
            expected["operations"] += operations

    def add(self, rows: Iterable[dict[str, Any]], problems: Sequence[str], finished: str | None) -> None:
        """Add a convolution's rows and problems; `finished` is its name if all its passes were made."""
        self._rows += rows
        self.problems += problems
        if finished is not None:
            self.unfinished.remove(finished)

    def better(self, ceilings: Ceilings) -> None:
        """Take the machine's ceilings from a second measurement where they are higher."""
        self.ceilings = better(self.ceilings, ceilings)

    def report(self) -> dict[str, Any]:
        """The content of convolutions.json."""
        rows = [row | limits(row, self.ceilings) for row in self._rows]
        return {
            "machine": self.machine,
            "options": self.options,
            "complete": self.complete,
            "unfinished": self.unfinished,
            "step": self._expected,
            "totals": totals(rows),
            "rows": rows,
            "problems": self.problems,
            "ceilings": vars(self.ceilings),
        }

    def end(self) -> None:
        """End the measurement: set `complete` and write the file."""
        self.complete = not self.unfinished
        self.save()

    def save(self) -> None:
        """Write the file atomically."""
        if self.path is not None:
            write_json(self.path, self.report())


def part_of(module: str) -> str:
    """The part of the model that a module is in, for example "image_encoder"."""
    return module.partition(".")[0]


def totals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time, limits and operations of the timed convolutions in a step: by part and direction, by part, and in total."""
    parts = sorted({part_of(module) for row in rows for module in row["modules"]}, reverse=True)
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    pairs = [(part, direction) for part in parts for direction in (*directions, "all")]
    return [_total(rows, part, direction) for part, direction in (*pairs, ("all", "all"))] if rows else []


def _total(rows: Sequence[dict[str, Any]], part: str, direction: str) -> dict[str, Any]:
    chosen = [
        (row, sum(part in ("all", part_of(module)) for module in row["modules"]))
        for row in rows
        if direction in ("all", row["direction"])
    ]
    total: dict[str, Any] = {"part": part, "direction": direction, "calls": sum(count for _, count in chosen)}
    for name in ("milliseconds", "limit_milliseconds", "operations", "bytes"):
        total[name] = sum(count * row[name] for row, count in chosen)
    chips = rows[0]["chip_limits_milliseconds"]
    total["chip_limits_milliseconds"] = {
        chip: sum(count * row["chip_limits_milliseconds"][chip] for row, count in chosen) for chip in chips
    }
    return total


def show(report: dict[str, Any], out: Path | None) -> None:
    """Print the tables, and write convolutions.md to `out`.

    Raises:
        RunError: a convolution computes a wrong result; raised after everything is written.
    """
    title = describe(report)
    stdout.print(
        f"{title}\n", *plain_table(HEADER, without_repeats(cells(report["rows"]), 2), TEXT_COLUMNS), "", sep="\n"
    )
    stdout.print(*plain_table(TOTALS, total_cells(report["totals"]), (0, 1)), "", *NOTES, sep="\n")
    if out is not None:
        write_text(out / "convolutions.md", markdown(title, report))
        stdout.print(f"{NAME} and convolutions.md are in {out}")
    if report["unfinished"]:
        stdout.print(unfinished(report))
    if report["problems"]:
        others = f"; {len(report['problems']) - 1} more too" if len(report["problems"]) > 1 else ""
        raise RunError(f"not timed, since it does not compute what it should: {report['problems'][0]}{others}")


def describe(report: dict[str, Any]) -> str:
    """What was measured and the machine's measured ceilings, in one line."""
    options, ceilings, machine = report["options"], report["ceilings"], report["machine"]
    width = "" if options["width_divisor"] == 1 else f", widths / {options['width_divisor']}"
    on_cpu = options["device"] == "cpu"
    where = f"{machine['processor']}, {machine['threads']} threads" if on_cpu else ceilings["name"]
    return (
        f"convolutions of stage {options['stage']}, {options['preset']}{width}, {options['batch']} images, "
        f"{SHORT[options['dtype']]}, {options['form']}, on {where}: measured ceilings "
        f"{ceilings['bandwidth'] / 1e9:,.0f} GB/s, {ceilings['rates'][options['dtype']] / 1e9:,.0f} GFLOP/s"
    )


def unfinished(report: dict[str, Any]) -> str:
    """A line that names the convolutions that were not measured in all passes."""
    return f"not complete, left out or not timed in all passes: {'; '.join(report['unfinished'])}"


def cells(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of rows under `HEADER`."""
    return [
        (
            row["name"],
            row["modules"][0] + (" ..." if row["count"] > 1 else ""),
            str(row["count"]),
            row["direction"],
            f"{row['milliseconds']:,.3f}",
            "{:,.3f} to {:,.3f}".format(*row["spread"]),
            f"{row['count'] * row['milliseconds']:,.3f}",
            f"{row['teraflops']:,.3f}",
            f"{row['operations'] / 1e9:,.2f}",
            f"{row['bytes'] / 1e6:,.1f}",
            f"{row['limit_milliseconds']:,.3f}",
            f"{row['share_of_limit']:.0%}",
            row["limit_by"],
            row["binds"],
        )
        for row in rows
    ]


def total_cells(sums: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of totals under `TOTALS`."""
    return [
        (
            row["part"],
            row["direction"],
            str(row["calls"]),
            f"{row['milliseconds']:,.2f}",
            f"{row['limit_milliseconds']:,.2f}",
            f"{row['limit_milliseconds'] / row['milliseconds']:.0%}",
            f"{row['operations'] / 1e12:,.3f}",
            f"{row['operations'] / row['milliseconds'] / 1e9:,.3f}",
        )
        for row in sums
    ]


def markdown(title: str, report: dict[str, Any]) -> str:
    """The tables, their notes, and the limits of other chips as Markdown."""
    rows, sums = report["rows"], report["totals"]
    lines = [f"# {title}", "", *markdown_table(HEADER, cells(rows), TEXT_COLUMNS)]
    lines += [
        "",
        "## Of a step",
        "",
        *markdown_table(TOTALS, total_cells(sums), (0, 1)),
        "",
        *(f"- {note}" for note in NOTES),
    ]
    lines += [f"- **Not timed**: {problem}" for problem in report["problems"]]
    lines += [f"- **{unfinished(report)}**"] if report["unfinished"] else []
    if sums:
        chips = list(sums[0]["chip_limits_milliseconds"])
        lines += ["", "## The least time on other chips", "", "Computed from data sheets, in ms; not measured.", ""]
        least = [
            (row["part"], row["direction"], *(f"{row['chip_limits_milliseconds'][chip]:.2f}" for chip in chips))
            for row in sums
        ]
        lines += markdown_table(("part", "direction", *chips), least, (0, 1))
    return "\n".join([*lines, ""])
