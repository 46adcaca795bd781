"""Keys and short names of the rows of kernels.json, and the ratio of a competitor's time to ours."""

from dataclasses import dataclass
from statistics import median
from typing import Any

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
PASSES = {"forward": "fwd", "forward+backward": "fwd+bwd"}


def call_of(row: dict[str, Any]) -> tuple[str, ...]:
    """The key of a call, equal for all its competitors."""
    return row["op"], row["shape"], row["direction"], row["dtype"]


def kind_of(op: str, shape: str) -> str:
    """The op, and the words before the batch size in the shape, if any: "sigmoid_attention report pool"."""
    return f"{op} {shape.partition('B=')[0]}".strip()


@dataclass(frozen=True)
class TimesOurs:
    """A competitor's time over ours at the same call, pass by pass: median and range. Above 1 it is slower."""

    median: float
    spread: tuple[float, float]


def times_ours(row: dict[str, Any], ours: dict[str, Any]) -> TimesOurs:
    """The time of `row` over ours. Both took turns in each pass, so other load on the machine cancels out."""
    ratios = [other / own for other, own in zip(row["passes"], ours["passes"])]
    return TimesOurs(median(ratios), (min(ratios), max(ratios)))


def pairs(report: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of our row and a competitor's of the same call; torch.compile and our other backends are competitors."""
    ours = {call_of(row): row for row in report["rows"] if row["ours"]}
    others = [row for row in report["rows"] if not row["ours"] and call_of(row) in ours]
    return [(ours[call_of(row)], row) for row in others]
