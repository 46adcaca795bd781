"""The speed of a run: rates, counted operations and their share of the chip's peak, memory, waiting for data.

A step only records sizes that the host knows, and keeps the batch's offsets; they are read with the loss terms.
"""

import re
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed
from torch import Tensor

from prior_fast.batch import PackedBatch
from prior_fast.config import ModelConfig
from prior_fast.hardware.chips import CHIPS
from prior_fast.training.distributed import Ranks
from prior_fast.training.operations import Sizes, step_operations

# The values of a log line that differ between runs with the same settings.
MEASURED = (
    *("pairs_per_second", "tokens_per_second", "tflops_per_second", "mfu"),
    *("data_wait", "peak_memory_gib"),
)
# The averages leave out this number of first steps of each stage, which compile kernels and allocate memory.
WARM_UP = 10
GIB = 2**30


@dataclass(frozen=True)
class Span:
    """Steps, their seconds, the seconds that this process waited for batches, and the operations of all ranks."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    operations: int = 0
    sizes: Sizes = field(default_factory=Sizes)

    def __add__(self, other: "Span") -> "Span":
        mine = (self.steps, self.seconds, self.waited, self.operations, self.sizes)
        theirs = (other.steps, other.seconds, other.waited, other.operations, other.sizes)
        return Span(*(a + b for a, b in zip(mine, theirs)))  # type: ignore[operator]


@dataclass
class _Notes:
    """Records of this rank about the steps since the last `close`, taken without waiting for the device."""

    started: float | None = None
    waited: float = 0.0
    tokens: int = 0
    sentences: int = 0
    pairs: list[int] = field(default_factory=list)
    offsets: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, batch: PackedBatch) -> None:
        self.tokens += batch.token_ids.shape[0] - batch.filler
        self.sentences += batch.num_sentences
        self.pairs.append(len(batch))
        self.offsets.append((batch.cu_tokens, batch.cu_sentences))


class Meter:
    """Measures the steps between calls of `close`, by stage.

    Each rank has a meter and calls `close` after the same steps. Figures cover all ranks, except memory and waiting,
    which are this rank's.

    structure: config of the model, with the text encoder's real sizes.
    max_tokens: the length that a report would be padded to.
    half: whether the forward pass runs in bfloat16.
    """

    def __init__(self, structure: ModelConfig, max_tokens: int, ranks: Ranks, half: bool) -> None:
        self.structure, self.max_tokens, self.ranks = structure, max_tokens, ranks
        self.peak = peak_rate(device_name(ranks.device), half)
        self.stage = 0
        self.early: dict[int, Span] = {}
        self.spans: dict[int, Span] = {}
        self.memory: dict[int, float] = {}
        self.notes = _Notes()

    def start_stage(self, stage: int) -> None:
        """Count the steps from now on to `stage`."""
        self.stage = stage
        self.early[stage] = self.spans[stage] = Span()
        if self.ranks.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.ranks.device)
        self.notes = _Notes()

    def watch(self, batches: Iterator[PackedBatch]) -> Iterator[PackedBatch]:
        """Yield the batches. A step lasts from one batch until the next is requested."""
        while True:
            asked = time.perf_counter()
            notes = self.notes
            # The time of a span starts here and not at the last `close`: validation and checkpoints lie in between.
            notes.started = asked if notes.started is None else notes.started
            batch = next(batches, None)
            notes.waited += time.perf_counter() - asked
            if batch is None:
                return
            notes.add(batch)
            yield batch

    def close(self) -> dict[str, float]:
        """The figures of the steps since the last call. Reads the batches' offsets, so it waits for the device."""
        notes, self.notes = self.notes, _Notes()
        sizes = self._read_sizes(notes)
        seconds = time.perf_counter() - (notes.started or 0.0)
        operations = step_operations(self.structure, self.stage, sizes)
        span = Span(len(notes.pairs), seconds, notes.waited, operations, sizes)
        stage = self.stage
        kind = self.early if self.early[stage].steps < WARM_UP else self.spans
        kind[stage] += span
        self.memory[stage] = peak_memory(self.ranks.device)
        return self._figures(span) | {"peak_memory_gib": self.memory[stage]}

    def summary(self) -> dict[str, object]:
        """Averages of the run and of each stage with steps, without the first WARM_UP steps of a stage.

        A stage with no later steps gives the average of its first steps, marked "warm_up_included".
        """
        stages, whole = {}, Span()
        for stage, early in self.early.items():
            span = self.spans[stage] if self.spans[stage].steps else early
            if span.steps:
                stages[str(stage)] = self._summarized(span, span is early, self.memory[stage])
                whole += span
        if not stages:
            return {}
        short = any(entry["warm_up_included"] for entry in stages.values())
        run = self._summarized(whole, short, max(self.memory.values()))
        peak = {} if self.peak is None else {"peak_tflops_per_second": self.peak * self.ranks.count / 1e12}
        return {"run": run | peak, "stages": stages}

    def _summarized(self, span: Span, short: bool, memory: float) -> dict[str, float | bool]:
        figures = {name: float(f"{value:.5g}") for name, value in self._figures(span).items()}
        gib = round(memory, 3)
        tflop = float(f"{span.operations / span.steps / 1e12:.5g}")
        extra = {"steps": span.steps, "warm_up_included": short, "tflop_per_step": tflop}
        return {**extra, **figures, "peak_memory_gib": gib}

    def _figures(self, span: Span) -> dict[str, float]:
        rate = span.operations / span.seconds
        figures = {
            "pairs_per_second": span.sizes.pairs / span.seconds,
            "tokens_per_second": span.sizes.tokens / span.seconds,
            "padding_removed": 1 - span.sizes.tokens / (span.sizes.pairs * self.max_tokens),
            "tflops_per_second": rate / 1e12,
            "data_wait": span.waited / span.seconds,
        }
        if self.peak is not None:
            figures["mfu"] = rate / (self.peak * self.ranks.count)
        return figures

    def _read_sizes(self, notes: _Notes) -> Sizes:
        """The sizes of the recorded steps, over all ranks."""
        squares = [sum_of_squares(list(offsets)) for offsets in zip(*notes.offsets)]
        own = torch.stack([*squares, *(squares[0].new_full((), n) for n in (notes.tokens, notes.sentences))])
        if self.ranks.group is not None:
            own = own.to(self.ranks.device)
            torch.distributed.all_reduce(own, group=self.ranks.group)
        squared_tokens, squared_sentences, tokens, sentences = own.tolist()
        joined = [pairs * self.ranks.count for pairs in notes.pairs]
        squared_pairs = sum(pairs * pairs for pairs in joined)
        return Sizes(sum(joined), tokens, sentences, squared_pairs, squared_tokens, squared_sentences)


def sum_of_squares(offsets: list[Tensor]) -> Tensor:
    """The sum [] int64 of the squared segment lengths of batches with equally many segments; stays on the device."""
    return torch.stack(offsets).diff(dim=1).long().square().sum()


def device_name(device: torch.device) -> str:
    """The GPU's name; "" for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def peak_rate(name: str, half: bool) -> float | None:
    """Peak operations/s of the chip's tensor cores in bfloat16, or in tf32 if not `half`; None for an unknown chip.

    For H100 and H200 it is the rate measured on an H200 (`prior_fast.hardware.chips`). The data sheet's rate is
    higher: a share of it is a fifth smaller.
    """
    for pattern, chip in ((r"\bA100\b", "sm_80"), (r"\bH200\b(?! NVL)|\bH100 80GB HBM3\b", "sm_90")):
        if re.search(pattern, name):
            rate = CHIPS[chip].rates["bfloat16"]
            # On both chips the tensor cores run tf32 at half the rate of bfloat16.
            return rate if half else rate / 2
    return None


def peak_memory(device: torch.device) -> float:
    """GiB: on a GPU the most that torch reserved since the stage began, else the process's largest resident size."""
    if device.type == "cuda":
        # Reserved, not allocated: the memory of a recorded part stays in use but does not count as allocated.
        return torch.cuda.max_memory_reserved(device) / GIB
    # Kilobytes, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
