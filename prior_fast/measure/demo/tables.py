"""The tables of docs/demo.md, made from the files of bench/demo/."""

from statistics import median
from typing import Any

from prior_fast.measure.demo.figure import shown
from prior_fast.tables import markdown_table

Report = dict[str, Any]
# The columns of the defects: the key of a figure, and its name in the table.
COLUMNS = {
    "accuracy": "accuracy",
    "image_to_text": "P@5, image to text",
    "text_to_image": "P@5, text to image",
    "hit_rate": "pointing game",
    "inside_over_outside": "inside over outside",
    "reconstruction": "reconstruction",
    "f1": "generated F1",
    "matched": "predicted for sentences",
}
MARK = "*"  # of a value that is no better than chance


def seeds_table(report: Report) -> list[str]:
    """A row for each figure: over the seeds its mean, least, greatest and spread, chance, and what stands beside it."""
    count = len(report["seeds"])
    rows = []
    for row in report["figures"]:
        beside = ", ".join(f"{name} {shown(value, 3)}" for name, value in row["beside"].items())
        failed = sum(map(bool, row["open"]))
        numbers = [shown(row[key], 3) for key in ("mean", "least", "greatest", "spread", "chance")]
        rows.append((row["name"], *numbers, beside, f"in {failed} of {count} seeds" if failed else ""))
    header = ("figure", "mean", "least", "greatest", "spread", "chance", "beside it", "open")
    seeds = ", ".join(map(str, report["seeds"]))
    table = markdown_table(header, rows, left=(0, 6, 7))
    return [*table, "", f"Seeds {seeds}; {report['studies']:,} made-up studies each; {_settings(report)}."]


def seconds_table(report: Report) -> list[str]:
    """A row for each command of the demo: its seconds with each seed, "-" where it was not run; the ceiling last.

    The ceiling is no part of the demo and of its total.
    """
    seconds = dict(report["seconds"])
    ceiling = seconds.pop("bench ceiling", None)
    rows = [(f"`{name}`", *map(_seconds, each)) for name, each in seconds.items()]
    rows.append(("together", *(_seconds(sum(each)) for each in zip(*seconds.values()))))
    if ceiling is not None:
        rows.append(("`bench ceiling`", *map(_seconds, ceiling)))
    return markdown_table(("command", *(f"seed {seed}, s" for seed in report["seeds"])), rows)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def sentences_table(report: Report) -> list[str]:
    """A row for each finding, looked for by the sentences of the own reports (`bench/demo/own_sentences.py`)."""
    header = ("finding", "findings", "maximum inside", "chance", "weight inside over outside, median")
    rows = [
        (name, f"{each['count']:,}", f"{each['hit_rate']:.3f}", f"{each['chance']:.3f}", f"{each['contrast']:.2f}")
        for name, each in (*report["findings"].items(), ("all", report["all"]))
    ]
    run = f"{report['training_steps']:,} steps in {report['training_seconds']:.0f} s"
    return [*markdown_table(header, rows, left=(0,)), "", f"{report['studies']:,} studies of the test split; {run}."]


def defects_table(report: Report) -> list[str]:
    """A row for each defect, and one for chance."""
    chance = [_value(report["defects"][0]["figures"].get(key, {}), "chance") for key in COLUMNS]
    rows = [
        (row["name"], *(_value(row["figures"].get(key, {}), "value") for key in COLUMNS)) for row in report["defects"]
    ]
    table = markdown_table(("defect", *COLUMNS.values()), [*rows, ("chance", *chance)])
    return [*table, "", f"{report['data']['studies']:,} test studies; {_settings(report)}."]


def steps_table(report: Report) -> list[str]:
    """A row for each neighbour and stage: the seconds of a step before and now, and how many times as fast now."""
    found = {(row["beside"], row["stage"], row["tree"]): row["seconds"] for row in report["rows"]}
    names = {"alone": "nothing", "busy": "one busy process"}
    rows = []
    for beside, stage in dict.fromkeys((row["beside"], row["stage"]) for row in report["rows"]):
        before, now = (found[beside, stage, tree] for tree in ("before", "now"))
        faster = median(before) / median(now)
        rows.append((names[beside], str(stage), *map(_range, (before, now)), f"{faster:.1f}"))
    table = markdown_table(("beside", "stage", "before, s", "now, s", "times as fast"), rows, left=(0,))
    return [*table, "", f"Batches of {report['batch_size']}; medians of {len(before)} rounds, and their range."]


def _range(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def planted_table(report: Report) -> list[str]:
    """A row for each defect: what was planted."""
    return markdown_table(("defect", "what was planted"), [(d["name"], d["what"]) for d in report["defects"]], (0, 1))


def _settings(report: Report) -> str:
    changed = report["settings"]
    return f"preset tiny with {' '.join(f'`{word}`' for word in changed)}" if changed else "preset tiny"


def _value(figure: Report, key: str) -> str:
    mark = MARK if key == "value" and figure.get("open") else ""
    return f"{shown(figure.get(key), 3)}{mark}"
