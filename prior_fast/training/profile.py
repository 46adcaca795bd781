"""A trace of a few steps of a stage by torch's profiler, and a table of the largest costs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, schedule

from prior_fast.console import print_table
from prior_fast.console.quiet import quiet_profiler
from prior_fast.files import atomic_path, write_text

# Numbers of steps: skipped (they compile kernels and allocate memory), profiled but not recorded, recorded.
SKIP, WARM_UP, RECORDED = 5, 2, 3
ROWS, SHOWN = 40, 10  # of the table, in its file and on the screen
Row = tuple[str, int, float, float]


class Recorder:
    """The training loop calls it after each step."""

    def step(self) -> None:
        """Note the end of a step."""


class _TorchRecorder(Recorder):
    def __init__(self, profiler: profile) -> None:
        self.profiler = profiler

    def step(self) -> None:
        self.profiler.step()


@contextmanager
def record_stage(out: Path, stage: int, steps: int, device: torch.device, enabled: bool) -> Iterator[Recorder]:
    """Write out/profile/stage-N.json, a Chrome trace, and stage-N.txt, a table, of the steps inside.

    steps: the number of steps inside; if it is small, fewer steps are skipped.
    enabled: if False, or if there are no steps, nothing is written.
    """
    if not enabled or steps == 0:
        yield Recorder()
        return
    folder = out / "profile"
    quiet_profiler()

    def write(profiler: profile) -> None:
        with atomic_path(folder / f"stage-{stage}.json") as partial:
            profiler.export_chrome_trace(str(partial))
        rows = largest_costs(profiler.key_averages(), device)
        write_text(folder / f"stage-{stage}.txt", as_text(rows))
        title = f"stage {stage}: the largest costs of {recorded} step(s), trace in {folder / f'stage-{stage}.json'}"
        print_table(title, HEADER, rows[:SHOWN])

    # Of two or more steps at least one is not recorded: the profiler's start slows the first step that it sees.
    recorded = min(RECORDED, max(steps - 1, 1))
    warm_up = min(WARM_UP, steps - recorded)
    skipped = min(SKIP, steps - recorded - warm_up)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    plan = schedule(skip_first=skipped, wait=0, warmup=warm_up, active=recorded, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write, acc_events=True) as profiler:
        yield _TorchRecorder(profiler)


HEADER = ("what", "calls", "ms", "share")


def largest_costs(events: Sequence[FunctionEventAvg], device: torch.device) -> list[Row]:
    """The ROWS kernels (on a CPU: ops) with the largest self time: name, calls, milliseconds, share of all."""
    if device.type == "cuda":
        times = [(e, e.self_device_time_total) for e in events if e.device_type == DeviceType.CUDA]
    else:
        times = [(e, e.self_cpu_time_total) for e in events if e.device_type == DeviceType.CPU]
    # The profiler's own marker of each step is not a cost.
    times = [(event, time) for event, time in times if time > 0 and not str(event.key).startswith("ProfilerStep")]
    total = sum(time for _, time in times)
    times.sort(key=lambda pair: -pair[1])
    return [(str(event.key)[:90], event.count, time / 1000, time / total) for event, time in times[:ROWS]]


def as_text(rows: Sequence[Row]) -> str:
    """The rows as lines of fixed columns."""
    lines = [f"{'calls':>8} {'ms':>12} {'share':>7}  what"]
    lines += [f"{calls:>8} {ms:>12.3f} {share:>7.1%}  {name}" for name, calls, ms, share in rows]
    return "\n".join(lines) + "\n"
