"""`prior-fast bench pretraining`: compares fine-tuned runs with and without pre-training."""

import json
import statistics
from pathlib import Path
from typing import Any

from prior_fast.console import print_table, stdout
from prior_fast.errors import UsageError
from prior_fast.files import write_json

# The paper's metric for each task.
METRICS = {"classification": "auroc", "segmentation": "dice_positives", "detection": "map_50_95"}
WITH, WITHOUT = "checkpoint", "random"
Report = dict[str, Any]


def compare_runs(folder: Path, out: Path | None) -> Report:
    """Compare each NAME-checkpoint below `folder` with NAME-random; write pretraining.json to `out`.

    Raises:
        UsageError: there is no such pair, a metrics.json can't be read, or the two runs of a pair differ in more than
            their starting weights.
    """
    runs = sorted(path.parent for path in folder.glob(f"*-{WITH}/metrics.json"))
    if not runs:
        raise UsageError(
            f"{folder} has no NAME-{WITH}/metrics.json: give the folder of `prior-fast evaluate`'s outputs"
        )
    rows = []
    checkpoint: Any = None
    for run in runs:
        name = run.name.removesuffix(f"-{WITH}")
        pre_trained, fresh = _read(run), _read(folder / f"{name}-{WITHOUT}")
        rows.append(compare(name, pre_trained, fresh))
        checkpoint = {key: pre_trained["checkpoint"][key] for key in ("preset", "stage", "total_steps")}
    report = {"kind": "pretraining", "checkpoint": checkpoint, "rows": rows}
    print_table("What pre-training is worth", HEADER, [cells(row) for row in rows])
    if out is not None:
        write_json(out / "pretraining.json", report)
        stdout.print(f"pretraining.json is in {out}")
    return report


def compare(name: str, pre_trained: Report, fresh: Report) -> dict[str, Any]:
    """A row of pretraining.json, from two metrics.json files.

    Raises:
        UsageError: the runs differ in task, data or settings, or a split has no value.
    """
    if (pre_trained["protocol"]["weights"], fresh["protocol"]["weights"]) != (WITH, WITHOUT):
        raise UsageError(f"{name}: the weights settings do not match the folders' names")
    for what, a, b in (
        ("task", pre_trained["task"], fresh["task"]),
        ("data", pre_trained["data"], fresh["data"]),
        *((key, value, fresh["protocol"].get(key)) for key, value in pre_trained["protocol"].items()),
    ):
        if what != "weights" and a != b:
            raise UsageError(f"{name}: the two runs differ in {what}: {a!r} and {b!r}")
    metric = METRICS[pre_trained["task"]]
    values = [report["metrics"][metric]["values"] for report in (pre_trained, fresh)]
    if values[0].keys() != values[1].keys() or None in (*values[0].values(), *values[1].values()):
        raise UsageError(f"{name}: {metric} is not defined on the same splits in both runs")
    gains = [values[0][split] - values[1][split] for split in values[0]]
    percent = pre_trained["protocol"]["percent"]
    lists = "train" if percent == 100 else f"train-{percent}"
    images = [split[lists] for split in pre_trained["data"]["splits"].values()]
    with_it, without = (list(each.values()) for each in values)
    return {
        "name": name,
        "task": pre_trained["task"],
        "data": pre_trained["data"]["name"],
        "percent": percent,
        "training_images": sorted(set(images)),
        "metric": metric,
        "splits": len(gains),
        WITH: {"mean": statistics.fmean(with_it), "std": spread(with_it), "values": with_it},
        WITHOUT: {"mean": statistics.fmean(without), "std": spread(without), "values": without},
        "gain": {"mean": statistics.fmean(gains), "std": spread(gains), "values": gains},
        "apart": min(with_it) > max(without),
        "settings": {k: v for k, v in pre_trained["protocol"].items() if isinstance(v, (int, float, str, list))},
    }


def spread(values: list[float]) -> float | None:
    """Sample standard deviation; None for a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


HEADER = ("run", "data", "% (images)", "metric", "pre-trained", "random", "gain", "worst above best")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table; "worst above best": the worst pre-trained split is above the best random one."""
    counts = row["training_images"]
    images = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        row["name"],
        row["data"],
        f"{row['percent']} ({images})",
        row["metric"],
        *(_mean(row[key]) for key in (WITH, WITHOUT, "gain")),
        "yes" if row["apart"] else "no",
    )


def _mean(value: dict[str, Any]) -> str:
    deviation = "" if value["std"] is None else f" ± {value['std']:.3f}"
    return f"{value['mean']:.3f}{deviation}"


def _read(folder: Path) -> Report:
    path = folder / "metrics.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["task"] not in METRICS:
            raise UsageError(f"{path} is a result of {report['task']}, which does not train")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} can't be read as a result of a fine-tuned task: {error!r}") from None
    return report
