"""Means and standard deviations over the splits of a task."""

import statistics
from collections.abc import Mapping
from typing import Any


def over_splits(results: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of each metric over the splits where it is defined.

    results: for each split its metrics by name.

    Returns:
        For each metric "mean", "std" (of a sample: divided by the number of splits - 1; None for fewer than two),
        "splits" (the number of defined values), "values" for each split, and "note" if it is undefined in some splits.
    """
    names = dict.fromkeys(name for values in results.values() for name in values)
    summary: dict[str, dict[str, Any]] = {}
    for name in names:
        values = {split: metrics.get(name) for split, metrics in results.items()}
        defined = [value for value in values.values() if value is not None]
        summary[name] = {
            "mean": statistics.fmean(defined) if defined else None,
            "std": statistics.stdev(defined) if len(defined) > 1 else None,
            "splits": len(defined),
            "values": values,
        }
        if len(defined) < len(values):
            missing = ", ".join(split for split, value in values.items() if value is None)
            summary[name]["note"] = f"undefined in {missing}"
    return summary
