"""The milliseconds of a step by part: read from a result file, or measured with torch's profiler on this machine."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from prior_fast.config import RunConfig
from prior_fast.console import busy
from prior_fast.console.quiet import quiet_profiler
from prior_fast.errors import UsageError
from prior_fast.measure.ladder.batches import VOCABULARY, made_up_batches
from prior_fast.measure.predict.eager import part_of_op
from prior_fast.measure.predict.kernels import part_of_kernel
from prior_fast.measure.predict.parts import OPTIMIZER, PARTS, REST
from prior_fast.model.prior import PRIORModel
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.distributed import Ranks
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer

WARM_UP, PROFILED = 2, 7
UPDATE = "prior_fast.update"  # the profile's name of clipping and update
Milliseconds = dict[str, float]


def read_parts(path: Path, stage: int, batch: int) -> Milliseconds:
    """The measured parts of a stage in a file of bench/gpu/steps.py, or in a predict.json.

    Raises:
        UsageError: the file can't be read, or has no parts of this stage and batch size.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("kind") == "predict":
            options = report["options"]
            parts = {row["part"]: row["measured"] for row in report["parts"] if row["measured"] is not None}
            found = [(options["stage"], options["batch"], parts)]
        else:
            found = [
                (own["stage"], own["batch"], {row["part"]: row["milliseconds"] for row in own.get("parts", ())})
                for own in report["stages"]
            ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--beside {path}: is no steps.json or predict.json: {error!r}") from None
    there = ", ".join(f"stage {own} at batch {pairs}" for own, pairs, parts in found if parts) or "none"
    for own, pairs, parts in found:
        if (own, pairs) == (stage, batch) and parts:
            return parts
    raise UsageError(f"--beside {path}: has no parts of stage {stage} at batch {batch}; it has {there}")


def measure_parts(config: RunConfig, stage: int, mean_tokens: int, device: torch.device) -> Milliseconds:
    """Profile steps of random weights on a made-up batch: milliseconds of each part in a step.

    A step on a CPU runs without torch.compile, and each of its calls has its least time of several steps, since the
    ceilings are best times too and other programs take time from a CPU. A step on a GPU is that of training, and a part
    has the median of the steps.
    """
    quiet_profiler()
    if device.type == "cpu":
        config = replace(config, compile="off")
    (batch,) = made_up_batches(config, 1, mean_tokens, VOCABULARY, config.seed)
    torch.manual_seed(config.seed)
    model = PRIORModel(config.model, VOCABULARY).to(device).train()
    trainer = StageTrainer(model, stage, config, Ranks(0, 1, None, device))
    if trainer.branches is not None:
        # The profiler does not see the calls of the branches' thread.
        trainer.branches.close()
        trainer.branches = None
    batch = batch.to(device)

    def step(number: int) -> None:
        with trainer.autocast:
            terms = trainer.evaluate(batch, StepContext(config.model.bank.tau_start, number))
        trainer.optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        with record_function(UPDATE):
            trainer.update()

    for group in trainer.optimizer.param_groups:
        group["lr"] = config.learning_rate[stage - 1]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with (
        cudnn_for_training(config.cudnn_benchmark),
        closing(trainer),
        busy("profiling steps", WARM_UP + PROFILED) as advance,
    ):
        for number in range(WARM_UP):
            step(number)
            advance(1)
        profiles = []
        for number in range(PROFILED):
            with profile(activities=activities, acc_events=True) as profiler:
                step(WARM_UP + number)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
            profiles.append(profiler.events())
            advance(1)
    if device.type == "cuda":
        found = [kernels_by_part(events) for events in profiles]
        sums = {part: median(own.get(part, 0.0) for own in found) for part in PARTS}
    else:
        sums = least_by_part([calls_of(events) for events in profiles])
    return {part: sums.get(part, 0.0) / 1e3 for part in PARTS}


def kernels_by_part(events: Iterable[Any]) -> dict[str, float]:
    """Microseconds of the kernels of each part."""
    sums: dict[str, float] = defaultdict(float)
    for event in events:
        if event.device_type == torch.autograd.DeviceType.CUDA:
            sums[part_of_kernel(event.name)] += event.time_range.elapsed_us()
    return sums


def calls_of(events: Iterable[FunctionEvent]) -> list[tuple[str, float]]:
    """The part of each call of a step on a CPU, and its microseconds without the calls inside it, in their order.

    Calls inside a call of a part belong to this part. Other calls, such as additions, and the time that autograd takes
    itself are "all else".
    """
    calls: list[tuple[str, float]] = []

    def visit(event: FunctionEvent, part: str) -> None:
        namespace, _, name = event.name.rpartition("::")
        if part == REST:
            part = OPTIMIZER if event.name == UPDATE else part_of_op(name, namespace) if namespace else REST
        calls.append((part, event.self_cpu_time_total))
        for child in event.cpu_children:
            visit(child, part)

    for event in events:
        if event.cpu_parent is None:
            visit(event, REST)
    return calls


def least_by_part(steps: Sequence[Sequence[tuple[str, float]]]) -> dict[str, float]:
    """Microseconds of each part, from the least time that each call took in any of the steps.

    Steps of one batch make the same calls. If the calls differ, a part has its least sum over a step.
    """
    sums: dict[str, float] = defaultdict(float)
    if len({tuple(part for part, _ in calls) for calls in steps}) == 1:
        for same in zip(*steps, strict=True):
            sums[same[0][0]] += min(time for _, time in same)
        return sums
    for part in PARTS:
        sums[part] = min(sum(time for own, time in calls if own == part) for calls in steps)
    return sums
