"""What tells the rows of kernels.json apart, in the words of tables and plots, and a competitor's row beside ours."""

from dataclasses import dataclass
from statistics import median
from typing import Any

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
PASSES = {"forward": "fwd", "forward+backward": "fwd+bwd"}


def call_of(row: dict[str, Any]) -> tuple[str, ...]:
    """What competitors have in common."""
    return row["op"], row["shape"], row["direction"], row["dtype"]


def kind_of(op: str, shape: str) -> str:
    """The op, and the word before the batch where its shapes begin with one: "sigmoid_attention report pool"."""
    return f"{op} {shape.partition('B=')[0]}".strip()


@dataclass(frozen=True)
class TimesOurs:
    """A competitor's time over ours at the same call, pass by pass: the median and the range. Above 1 is slower."""

    median: float
    spread: tuple[float, float]


def times_ours(row: dict[str, Any], ours: dict[str, Any]) -> TimesOurs:
    """How many times our time `row` takes. Both took turns in each pass, so a busy machine cancels out."""
    ratios = [other / own for other, own in zip(row["passes"], ours["passes"])]
    return TimesOurs(median(ratios), (min(ratios), max(ratios)))


def pairs(report: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Our rows with each competitor's at the same call; torch.compile and our own other backends are competitors."""
    ours = {call_of(row): row for row in report["rows"] if row["ours"]}
    others = [row for row in report["rows"] if not row["ours"] and call_of(row) in ours]
    return [(ours[call_of(row)], row) for row in others]
