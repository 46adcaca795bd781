"""Times the steps of a stage as in training, without the checks and other rungs of `prior-fast bench train`:

    python -m prior_fast.bench.gpu.steps --stage 3 --out OUT [--batch 128] [--steps 60] [--profile] [key=value ...]

OUT/steps.json holds, for each stage measured so far: the time of each ten steps, the host's time for a step on an idle
device, peak memory, and with --profile the device's time by parts of the step and the largest kernels. Batches are made
up, with 90 tokens per report on average; weights are random. It also runs on a CPU, without the parts.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from prior_fast.config import to_dict
from prior_fast.files import write_json
from prior_fast.hardware.machine import describe_machine
from prior_fast.measure.ladder.bench_ladder import SEED, LadderOptions, make_batches, make_config
from prior_fast.measure.predict.kernels import part_of_kernel
from prior_fast.measure.predict.parts import PARTS
from prior_fast.model.prior import PRIORModel
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.distributed import Ranks, choose_device
from prior_fast.training.operations import sizes_of, step_operations
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer

BATCHES, WARM_UP, GROUP, PROFILED, SHOWN = 8, 8, 10, 3, 100


def by_part(events: Iterable[tuple[str, float]], steps: int) -> dict[str, Any]:
    """Milliseconds and launches per step of each part and of the largest kernels.

    events: names and microseconds of the kernels of `steps` steps.
    """
    times: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for name, microseconds in events:
        times[name] += microseconds  # type: ignore[assignment]
        calls[name] += 1

    def row(names: Iterable[str]) -> dict[str, Any]:
        own = list(names)
        return {
            "milliseconds": sum(times[name] for name in own) / 1e3 / steps,
            "launches": sum(calls[name] for name in own) / steps,
        }

    parts = [{"part": part} | row(name for name in times if part_of_kernel(name) == part) for part in PARTS]
    kernels = [{"name": name[:120], "part": part_of_kernel(name)} | row([name]) for name, _ in times.most_common(SHOWN)]
    return {"parts": sorted(parts, key=lambda p: -p["milliseconds"]), "kernels": kernels}


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(take: Callable[[int], Any], steps: int, device: torch.device) -> dict[str, Any]:
    """Milliseconds per step, in groups of ten steps, and the host's milliseconds for single steps on an idle device."""
    for number in range(WARM_UP):
        take(number)
    groups, host = [], []
    for first in range(0, steps, GROUP):
        synchronize(device)
        began = time.perf_counter()
        for number in range(first, first + GROUP):
            take(number)
        synchronize(device)
        groups.append(1e3 * (time.perf_counter() - began) / GROUP)
    for number in range(GROUP):
        synchronize(device)
        began = time.perf_counter()
        take(number)
        host.append(1e3 * (time.perf_counter() - began))
    return {"milliseconds": groups, "host_milliseconds": host}


def profiled(take: Callable[[int], Any]) -> dict[str, Any]:
    """A profile of some steps on a GPU, by part."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for number in range(PROFILED):
            take(number)
        torch.cuda.synchronize()
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    kinds = ("kernel", "gpu_memcpy", "gpu_memset")
    return by_part([(event["name"], event["dur"]) for event in events if event.get("cat") in kinds], PROFILED)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the steps of a stage as in training.")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), default=3)
    parser.add_argument("--batch", type=int, default=128, help="pairs per step (default: 128)")
    parser.add_argument("--steps", type=int, default=60, help="timed steps, in groups of ten (default: 60)")
    parser.add_argument("--profile", action="store_true", help="add the device's time by parts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    args = parser.parse_args()
    options = LadderOptions(args.preset, args.stage, args.batch, settings=args.settings)
    config = make_config(options)
    device = choose_device(config.device)
    batches, vocabulary = make_batches(options, config, BATCHES)
    torch.manual_seed(config.seed)
    model = PRIORModel(config.model, vocabulary).to(device).train()
    trainer = StageTrainer(model, args.stage, config, Ranks(0, 1, None, device))
    there = [batch.to(device) for batch in batches]

    def take(number: int) -> None:
        context = StepContext(config.model.bank.tau_start, SEED + number)
        trainer.step(there[number % BATCHES], context, config.learning_rate[args.stage - 1])

    with cudnn_for_training(config.cudnn_benchmark), closing(trainer):
        found = measure(take, args.steps, device)
        if args.profile and device.type == "cuda":
            found |= profiled(take)
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
        found["reserved_bytes"] = torch.cuda.max_memory_reserved()
    typical = median(found["milliseconds"])
    measured = {
        "stage": args.stage,
        "batch": args.batch,
        "config": to_dict(config),
        "tokens": [len(batch.token_ids) for batch in batches],
        "sentences": [batch.num_sentences for batch in batches],
        "tflop_per_step": step_operations(config.model, args.stage, sizes_of(batches)) / BATCHES / 1e12,
        **found,
    }
    path = args.out / "steps.json"
    before = json.loads(path.read_text(encoding="utf-8"))["stages"] if path.exists() else []
    stages = [measured, *(own for own in before if own["stage"] != args.stage)]
    write_json(path, {"machine": describe_machine(), "stages": sorted(stages, key=lambda own: own["stage"])})
    host = median(found["host_milliseconds"])
    print(f"stage {args.stage}: {typical:.1f} ms, {1e3 * args.batch / typical:,.0f} pairs/s, host alone {host:.1f} ms")


if __name__ == "__main__":
    main()
