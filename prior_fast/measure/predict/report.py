"""Shows a prediction: tables in the terminal, the table of a page, and predict.json."""

from pathlib import Path
from typing import Any

from prior_fast.console import print_table, stdout
from prior_fast.files import write_json

Report = dict[str, Any]


def header(report: Report) -> list[str]:
    """The columns of the table of parts."""
    chips = list(report["parts"][0]["milliseconds"])
    columns = ["part", "TFLOP", "GB", "launches", *(f"{name}, ms" for name in chips)]
    return [*columns, "measured, ms", "predicted / measured"] if has_measured(report) else columns


def has_measured(report: Report) -> bool:
    """Whether measured times stand beside the predicted ones."""
    return any(row["measured"] is not None for row in report["parts"])


def cells(report: Report) -> list[list[str]]:
    """A row for each part, and their sums. Measured times belong to the first chip."""
    rows = [*report["parts"], _together(report["parts"])]
    table = []
    for row in rows:
        times = list(row["milliseconds"].values())
        own = [row["part"], f"{row['operations'] / 1e12:.2f}", f"{row['bytes'] / 1e9:.1f}", f"{row['launches']:,}"]
        own += [f"{value:.1f}" for value in times]
        if has_measured(report):
            measured = row["measured"]
            own += ["-", "-"] if not measured else [f"{measured:.1f}", f"{times[0] / measured:.2f}"]
        table.append(own)
    return table


def _together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    chips = rows[0]["milliseconds"]
    return {
        "part": "together",
        **{key: sum(row[key] for row in rows) for key in ("operations", "bytes", "launches")},
        "milliseconds": {name: sum(row["milliseconds"][name] for row in rows) for name in chips},
        "measured": sum(row["measured"] or 0 for row in rows),
    }


def show(report: Report, out: Path | None) -> None:
    """Print the tables, and write predict.json to `out` unless it is None."""
    options = report["options"]
    width = "" if options["width_divisor"] == 1 else f", widths / {options['width_divisor']}"
    title = (
        f"stage {options['stage']} of {options['preset']}{width}, {options['batch']} pairs, "
        f"{report['counted']['tokens']:,} tokens, {options['dtype']}, {options['form']}"
    )
    print_table(title, header(report), cells(report))
    if "convolutions" in report:
        _show_convolutions(report["convolutions"])
    rows = [(row["name"], f"{row['value']:.3g}", row["source"]) for row in report["assumptions"]]
    print_table("assumptions", ("name", "value", "meaning and source"), rows)
    for name, own in report["speeds"].items():
        rates = ", ".join(f"{dtype} {rate / 1e12:.3g} TFLOP/s" for dtype, rate in own["rates"].items())
        stdout.print(f"{name}: {own['bandwidth'] / 1e9:,.0f} GB/s, {rates}")
    stdout.print("Times are predicted: counted work over the chip's rates times the shares above.")
    if out is not None:
        write_json(out / "predict.json", report)
        stdout.print(f"predict.json is in {out}")


def _show_convolutions(rows: list[dict[str, Any]]) -> None:
    if not rows:
        stdout.print("No transposed convolutions: this stage has no image decoder.")
        return
    chips = list(rows[0]["least"])
    table = [
        [
            *(row["form"], row["direction"], *(f"{row[size]:,}" for size in "MNK")),
            *(f"{row['operations'] / 1e9:.0f}", f"{row['bytes'] / 1e6:.0f}"),
            *(f"{row['least'][chip]['milliseconds']:.3f}" for chip in chips),
        ]
        for row in rows
    ]
    columns = ("channels, pixels", "direction", "M", "N", "K", "GFLOP", "MB", *(f"{chip}, ms" for chip in chips))
    print_table("transposed convolutions as products [M, K] [K, N], at least", columns, table)
