"""What tells the rows of kernels.json apart, in the words of tables and plots."""

from typing import Any

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
PASSES = {"forward": "fwd", "forward+backward": "fwd+bwd"}


def call_of(row: dict[str, Any]) -> tuple[str, ...]:
    """What competitors have in common."""
    return row["op"], row["shape"], row["direction"], row["dtype"]


def kind_of(op: str, shape: str) -> str:
    """The op, and the word before the batch where its shapes begin with one: "sigmoid_attention report pool"."""
    return f"{op} {shape.partition('B=')[0]}".strip()
