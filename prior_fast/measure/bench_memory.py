"""`prior-fast bench memory`: counts what a training step keeps in memory and estimates the memory of a batch size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prior_fast.batch import PackedBatch
from prior_fast.config import RunConfig, to_dict
from prior_fast.console import print_table, progress, stdout
from prior_fast.errors import UsageError
from prior_fast.files import write_json
from prior_fast.hardware.machine import describe_machine
from prior_fast.measure.ladder.batches import VOCABULARY, made_up_batches
from prior_fast.measure.ladder.bench_ladder import LadderOptions, make_config
from prior_fast.model.prior import PRIORModel
from prior_fast.training.stages import STAGES, StepContext, weighted_sum
from prior_fast.training.step import make_autocast, train_only

GB = 1e9
# A parameter, its gradient and Adam's two moments.
COPIES = 4


@dataclass(frozen=True)
class MemoryOptions:
    """Options of `prior-fast bench memory`; see its --help."""

    preset: str = "paper"
    stage: int = 3
    batches: Sequence[int] = (2, 4, 8)
    at: int = 128
    width_divisor: int = 1
    mean_tokens: int = 90
    out: Path | None = None
    settings: Sequence[str] = ()


class SavedTensors:
    """Counts the bytes that autograd keeps for a backward pass: each storage once, without the storages of `known`."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        self.known = {x.untyped_storage().data_ptr() for x in known}
        # Keeps the tensors alive: a freed storage's address may be reused.
        self.kept: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        return sum(x.untyped_storage().nbytes() for x in self.kept.values())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Context manager: counts the tensors that autograd saves in its block."""

        def pack(x: Tensor) -> Tensor:
            place = x.untyped_storage().data_ptr()
            if place not in self.known:
                self.kept[place] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            yield


def saved_bytes(model: PRIORModel, batch: PackedBatch, stage: int, config: RunConfig) -> int:
    """Bytes that the forward pass of a stage keeps for its backward pass, without parameters, buffers and the batch."""
    known = [*model.parameters(), *model.buffers(), *(x for x in vars(batch).values() if isinstance(x, Tensor))]
    saved = SavedTensors(known)
    with saved.counting(), make_autocast(config.precision, torch.device("cpu")):
        terms = STAGES[stage](model, batch, StepContext(config.model.bank.tau_start, 0))
        loss = weighted_sum(terms, config.loss, stage)
    total = saved.bytes
    del loss, terms
    return total


def run_memory(options: MemoryOptions) -> dict[str, Any]:
    """Count, print a table and write memory.json to `out`; returns its content.

    Raises:
        UsageError: fewer than two batch sizes, or a setting that can't be used.
    """
    sizes = sorted(set(options.batches))
    if len(sizes) < 2 or sizes[0] < 2:
        raise UsageError(f"--batches {','.join(map(str, options.batches))}: needs two different sizes of 2 or more")
    if options.at < 1:
        raise UsageError(f"--at {options.at}: must be 1 or more")
    words = list(options.settings)
    if not any(word.startswith("precision=") for word in words):
        words.append("precision=bf16")
    step = LadderOptions(options.preset, options.stage, sizes[-1], width_divisor=options.width_divisor, settings=words)
    config = make_config(step)
    torch.manual_seed(config.seed)
    model = PRIORModel(config.model, VOCABULARY).train()
    trained = sum(parameter.numel() for parameter in train_only(model, options.stage).values())
    total = sum(parameter.numel() for parameter in model.parameters())
    (batch,) = made_up_batches(config, 1, options.mean_tokens, VOCABULARY, config.seed)
    points = []
    with progress() as bar:
        task = bar.add_task("counting", total=len(sizes))
        for pairs in sizes:
            points.append((pairs, saved_bytes(model, first_pairs(batch, pairs), options.stage, config)))
            bar.advance(task)
    fixed, per_pair = line(points)
    parameters = 4 * (total + (COPIES - 1) * trained)
    report = {
        "kind": "memory",
        "machine": describe_machine(),
        "options": {
            **{name: getattr(options, name) for name in ("preset", "stage", "width_divisor", "mean_tokens")},
            "config": to_dict(config),
        },
        "points": [{"pairs": pairs, "saved_bytes": saved} for pairs, saved in points],
        "saved_bytes_fixed": fixed,
        "saved_bytes_per_pair": per_pair,
        "parameters": total,
        "trained_parameters": trained,
        "parameter_bytes": parameters,
        "at": options.at,
        "estimate_bytes": parameters + fixed + per_pair * options.at,
    }
    show(report, options.out)
    return report


def first_pairs(batch: PackedBatch, pairs: int) -> PackedBatch:
    """The first `pairs` pairs of a batch."""
    sentences, tokens = int(batch.cu_sentences[pairs]), int(batch.cu_tokens[pairs])
    cu_sentence_tokens = batch.cu_sentence_tokens[: sentences + 1]
    return PackedBatch(
        images=batch.images[:pairs],
        token_ids=batch.token_ids[:tokens],
        position_ids=batch.position_ids[:tokens],
        cu_tokens=batch.cu_tokens[: pairs + 1],
        cu_sentence_tokens=cu_sentence_tokens,
        cu_sentences=batch.cu_sentences[: pairs + 1],
        max_tokens=int(batch.cu_tokens[: pairs + 1].diff().max()),
        max_sentence_tokens=int(cu_sentence_tokens.diff().max()),
        max_sentences=int(batch.cu_sentences[: pairs + 1].diff().max()),
        study_ids=batch.study_ids[:pairs],
        image_rows=batch.image_rows[:pairs],
    )


def line(points: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line through the points."""
    x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*points))
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    return float(y.mean()) - slope * float(x.mean()), slope


def show(report: dict[str, Any], out: Path | None) -> None:
    """Print the table, and write memory.json to `out` unless it is None."""
    rows = [
        (f"kept for the backward pass, {p['pairs']} pairs", f"{p['saved_bytes'] / GB:.2f}") for p in report["points"]
    ]
    rows += [
        ("the same, for each pair more", f"{report['saved_bytes_per_pair'] / GB:.3f}"),
        ("parameters, gradients, Adam's moments", f"{report['parameter_bytes'] / GB:.2f}"),
        (f"together at {report['at']} pairs (estimated)", f"{report['estimate_bytes'] / GB:.1f}"),
    ]
    options = report["options"]
    print_table(f"stage {options['stage']} of {options['preset']}, in GB", ("what", "GB"), rows)
    stdout.print("Not included: temporary memory of kernels and libraries, and unused memory between tensors.")
    if out is not None:
        write_json(out / "memory.json", report)
        stdout.print(f"memory.json is in {out}")
