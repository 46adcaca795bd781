"""The filled table: measured numbers beside printed ones, and the differences in protocol."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prior_fast.console import stdout
from prior_fast.files import write_json, write_text
from prior_fast.reproduce.execute import Outcome
from prior_fast.reproduce.measures import Value
from prior_fast.reproduce.printed import PRINTED, Printed
from prior_fast.reproduce.steps import Step
from prior_fast.reproduce.tables import Column, Table
from prior_fast.reproduce.variants import VARIANTS
from prior_fast.tables import markdown_table, plain_table

Cells = dict[tuple[str, str], tuple[Step, ...]]


def write_report(
    table: Table, cells: Cells, pictures: Mapping[str, Step], facts: Sequence[str], outcome: Outcome, out: Path
) -> bool:
    """Write `out`/NAME.md and NAME.json, and print the table.

    Args:
        cells: by variant and column the steps of a number.
        pictures: by variant the step that draws its pictures, for a table without columns.
        facts: what differs from the paper by the user's wish.
        outcome: of the steps.

    Returns:
        Whether every number and picture is there.
    """
    values = {place: _value(table, place, steps) for place, steps in cells.items()}
    rows = [_row(table, variant, values, outcome, cells) for variant in table.variants] if table.columns else []
    shown = [(VARIANTS[name].title, _where(step)) for name, step in pictures.items()]
    steps = [step for place in cells.values() for step in place] + list(pictures.values())
    notes = [*_failures(steps, outcome), *facts, *table.differences, *_sources(table)]
    header = ["model", *(column.title for column in table.columns)] if table.columns else ["model", "pictures"]
    body = [line for model in rows for line in model] if table.columns else [list(row) for row in shown]
    title = f"{table.label}: {table.title}"
    lines = [f"# {title}", "", *markdown_table(header, body), "", *(f"- {note}" for note in notes)]
    write_text(out / f"{table.name}.md", "\n".join(lines) + "\n")
    write_json(out / f"{table.name}.json", _json(table, title, values, cells, pictures, notes))
    stdout.print(f"\n{title}")
    for line in plain_table(header, body, left=[0]):
        stdout.print(line)
    for note in notes:
        stdout.print(f"- {note}")
    return all(value is not None for value in values.values()) and all(step.finished() for step in pictures.values())


def _value(table: Table, place: tuple[str, str], steps: Sequence[Step]) -> Value | None:
    """The number of a cell; None if a step is not finished."""
    if not all(step.finished() for step in steps):
        return None
    return next(column for column in table.columns if column.key == place[1]).measure.read(steps)


def _row(
    table: Table, variant: str, values: Mapping[tuple[str, str], Value | None], outcome: Outcome, cells: Cells
) -> list[list[str]]:
    """The lines of a model: the measured numbers, and the printed ones if there are any."""
    title = VARIANTS[variant].title
    measured = [title]
    for column in table.columns:
        value = values[variant, column.key]
        broken = {*outcome.failed, *outcome.left_out} & {step.name for step in cells[variant, column.key]}
        measured.append("failed" if broken else "not run" if value is None else str(value))
    printed = [found.text if (found := _printed(table, variant, column)) else "" for column in table.columns]
    return [measured, [f"{title}, printed", *printed]] if any(printed) else [measured]


def _printed(table: Table, variant: str, column: Column) -> Printed | None:
    return PRINTED.get((table.name, variant, column.printed or column.key))


def _failures(steps: Sequence[Step], outcome: Outcome) -> list[str]:
    """The steps without a result, and why."""
    names = dict.fromkeys(step.name for step in steps)
    failed = [f"{name} (exit code {outcome.failed[name]})" for name in names if name in outcome.failed]
    left_out = [name for name in names if name in outcome.left_out]
    lines = [f"Failed: {', '.join(failed)}; the command's last line says why."] if failed else []
    return lines + ([f"Left out, since a step that they need failed: {', '.join(left_out)}."] if left_out else [])


def _sources(table: Table) -> list[str]:
    found = (_printed(table, variant, column) for variant in table.variants for column in table.columns)
    sources = dict.fromkeys(each.source for each in found if each)
    return [f"Printed numbers: {'; '.join(sources)}."] if sources else ["No printed numbers were at hand."]


def _where(step: Step) -> str:
    return str(step.out / "index.html") if step.finished() else "not drawn"


def _json(
    table: Table,
    title: str,
    values: Mapping[tuple[str, str], Value | None],
    cells: Cells,
    pictures: Mapping[str, Step],
    notes: Sequence[str],
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for variant in table.variants:
        row = rows[variant] = {"title": VARIANTS[variant].title, "settings": list(VARIANTS[variant].settings)}
        for column in table.columns:
            value, printed = values[variant, column.key], _printed(table, variant, column)
            row[column.key] = {
                "title": column.title,
                "mean": value.mean if value else None,
                "std": value.std if value else None,
                "runs": value.runs if value else 0,
                "printed": printed.text if printed else None,
                "source": printed.source if printed else None,
                "results": [str(step.out) for step in cells[variant, column.key]],
            }
        if variant in pictures:
            row["pictures"] = str(pictures[variant].out)
    return {"table": table.name, "title": title, "unit": "percent", "rows": rows, "notes": list(notes)}
