"""The two printed tables of the kernel report."""

from collections.abc import Iterable, Sequence
from typing import Any

from prior_fast.console import stdout
from prior_fast.tables import plain_table, without_repeats

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
LIMITS_DTYPE = "bfloat16"


def print_kernels(rows: Sequence[dict[str, Any]]) -> None:
    """Print a row for each kernel, dtype and architecture: minimum and maximum over the compiled versions."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        for dtype in row["dtypes"]:
            name = row["kernel"].strip("_").removesuffix("_kernel")
            groups.setdefault((name, SHORT[dtype], row["arch"]), []).append(row)
    title = "kernels: minimum and maximum over their versions; blocks and warps are per multiprocessor"
    header = ("kernel", "dtype", "arch", "versions", "regs", "shared KB", "spills", "tensor core", "blocks", "warps")
    lines = []
    names = list(dict.fromkeys(name for name, _, _ in groups))
    for key, group in sorted(groups.items(), key=lambda item: names.index(item[0][0])):
        made = [row for row in group if "registers" in row]
        lines.append(
            (
                *key,
                str(len(group)),
                _range(row["registers"] for row in made),
                _range(round(row["shared_bytes"] / 1024, 1) for row in made),
                _range(row["spills"] for row in made),
                _tensor_core(made),
                _range(row["blocks_per_multiprocessor"] for row in made),
                _range(row["warps_per_multiprocessor"] for row in made),
            )
        )
    _print(title, header, lines, left=3)


def print_limits(limits: Sequence[dict[str, Any]], chips: Sequence[str]) -> None:
    """Print a row for each call of the bench files: bytes moved, operations, and the least time."""
    lines: list[tuple[str, ...]] = []
    for op in dict.fromkeys(limit["op"] for limit in limits):
        lines.append((op,))
        lines += [
            (
                f"  {limit['shape']}",
                limit["direction"],
                str(limit["launches"]),
                f"{limit['bytes'] / 1e6:.2f}",
                f"{limit['operations'] / 1e9:.3f}",
                *(f"{limit['chips'][chip]['seconds'] * 1e6:.2f}" for chip in chips),
            )
            for limit in limits
            if limit["op"] == op and limit["dtype"] == LIMITS_DTYPE
        ]
    title = f"calls: the least time that each can take, in {LIMITS_DTYPE}"
    header = ("op and shape", "pass", "launches", "MB", "GFLOP", *(f"{chip} us" for chip in chips))
    _print(title, header, lines, left=2)


def _print(title: str, header: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> None:
    for line in (f"{title}\n", *plain_table(header, without_repeats(lines), range(left)), ""):
        stdout.print(line)


def _tensor_core(rows: Sequence[dict[str, Any]]) -> str:
    """The instructions that occur, and their numbers: "32-64 HGMMA"."""
    words = []
    for name in ("HMMA", "HGMMA"):
        counts = [row["tensor_core"][name] for row in rows]
        if any(counts):
            words.append(f"{_range(counts)} {name}")
    return ", ".join(words) or "-"


def _range(values: Iterable[float]) -> str:
    """ "3" or "3-7"; whole numbers have no decimal point."""
    found = [f"{value:g}" for value in sorted(set(values))]
    return "-" if not found else found[0] if len(found) == 1 else f"{found[0]}-{found[-1]}"
