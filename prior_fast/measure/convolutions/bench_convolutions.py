"""`prior-fast bench convolutions`: times each convolution of a training step, forward and both gradients."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prior_fast.bench.common.case import Public, Work
from prior_fast.config import to_dict
from prior_fast.errors import RunError, UsageError
from prior_fast.hardware.machine import describe_machine
from prior_fast.measure.bursts import Pacer
from prior_fast.measure.convolutions.found import DIRECTIONS, FORWARD, WEIGHT, Convolution, Function, collect
from prior_fast.measure.convolutions.report import Sheet
from prior_fast.measure.kernels.bench_kernels import SECONDS
from prior_fast.measure.kernels.schedule import PASSES, Limit
from prior_fast.measure.ladder.bench_ladder import LadderOptions, make_config
from prior_fast.measure.roofline import measure_ceilings
from prior_fast.measure.timing import Timing, check, copies, joined, make_run, time_pass
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.distributed import choose_device
from prior_fast.training.step import compiles, make_autocast, runs_in_bf16

COMPILED, EAGER = "as in a compiled step on a GPU", "as in a step without torch.compile"
# Limit on the float64 operations of a check; a larger call is compared on some of its images.
CHECKED = {"cpu": 2e9, "cuda": 5e10}
CHECKED_IMAGES = 2  # at least


@dataclass(frozen=True)
class ConvolutionOptions:
    """Options of `prior-fast bench convolutions`; see its --help.

    device: None uses the `device` setting.
    seconds: for each direction of a convolution, over all passes; None: the default of `bench kernels`.
    """

    preset: str = "paper"
    stage: int = 3
    batch: int = 128
    width_divisor: int = 1
    device: str | None = None
    seconds: float | None = None
    out: Path | None = None
    settings: Sequence[str] = ()
    limit: Limit = field(default_factory=Limit)


def run_convolutions(
    options: ConvolutionOptions,
    advance: Callable[[str], None] = lambda name: None,
    functions: Mapping[str, Function] = DIRECTIONS,
) -> dict[str, Any]:
    """Check and time every convolution of a step, the one with most operations first; returns convolutions.json.

    functions: the functions to time, by direction.

    Raises:
        UsageError: an option or setting that can't be used.
    """
    settings = [*options.settings, *([f"device={options.device}"] if options.device else [])]
    step = LadderOptions(
        options.preset, options.stage, options.batch, width_divisor=options.width_divisor, settings=settings
    )
    config = make_config(step)
    device = choose_device(config.device)
    seconds = SECONDS[device.type] if options.seconds is None else options.seconds
    for name, value in (("seconds", seconds), ("limit", options.limit.seconds)):
        if value is not None and not value > 0:
            raise UsageError(f"--{name} {value}: must be more than 0")
    make_autocast(config.precision, device)  # raises if the device lacks the precision
    dtype = torch.bfloat16 if runs_in_bf16(config.precision, device) else torch.float32
    compiled = device.type == "cuda" and compiles(config, device)
    found = collect(config, options.stage, compiled)
    described = {
        **{name: getattr(options, name) for name in ("preset", "stage", "batch", "width_divisor")},
        "device": device.type, "dtype": str(dtype).removeprefix("torch."), "seconds": seconds, "passes": PASSES,
        "form": COMPILED if compiled else EAGER, "config": to_dict(config),
    }  # fmt: skip
    advance("ceilings of this machine")
    sheet = Sheet(options.out, describe_machine(), described, measure_ceilings(device, [described["dtype"]]))
    order = sorted(found, key=lambda conv: len(found[conv]) * conv.operations, reverse=True)
    for conv in order:
        sheet.expect(conv.name, found[conv], len(conv.directions) * conv.operations)
    torch.manual_seed(config.seed)
    with cudnn_for_training(config.cudnn_benchmark):
        for conv in order:
            if options.limit.left <= 0:
                break
            advance(conv.name)
            try:
                trial = Trial(conv, found[conv], device, dtype, functions)
                trial.measure(seconds, options.limit)
            except RuntimeError as error:  # for example too little memory: go on with the others
                sheet.add([], [f"convolution {conv.name}: {in_words(error)}"], None)
            else:
                sheet.add(trial.rows(), trial.problems, conv.name if trial.finished else None)
            sheet.save()
    if options.limit.left > 0:
        # Other work on the machine lowers the measured ceilings: measure again and keep the higher rates.
        advance("ceilings of this machine")
        sheet.better(measure_ceilings(device, [described["dtype"]]))
    sheet.end()
    return sheet.report()


class Trial:
    """Checks each direction of one convolution on random numbers, then times the directions in turn.

    Attributes:
        problems: why directions are not timed.
        finished: whether all passes were made.
    """

    def __init__(
        self,
        conv: Convolution,
        modules: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        functions: Mapping[str, Function],
    ) -> None:
        self.conv, self.modules, self.dtype = conv, modules, dtype
        shapes = [conv.input, conv.weight, conv.output]
        inputs = [_random(shape, device, dtype) for shape in shapes]
        if conv.has_bias:
            inputs.append(torch.randn(conv.output[1], device=device).to(dtype))
        self.functions = {name: partial(functions[name], conv) for name in conv.directions}
        self.case = Public("convolution", conv.name, self.functions[FORWARD], tuple(inputs), Work(0, conv.operations))
        self.problems: list[str] = []
        self.errors: dict[str, float] = {}
        self.passes: list[dict[str, Timing]] = []
        self.finished = False

    def measure(self, seconds: float, limit: Limit) -> None:
        """Check all directions, and time the correct ones.

        seconds: for each direction, over all passes.
        """
        for name, function in self.functions.items():
            try:
                self.errors[name] = self._check(name, function)
            except RunError as error:
                self.problems.append(str(error))
            except Exception as error:  # for example an unsupported call: go on with the others
                self.problems.append(f"convolution {self.conv.name}: {name}: {in_words(error)}")
        runs = {name: make_run(self.case, self.functions[name], False) for name in self.errors}
        on_gpu = self.case.inputs[0].is_cuda
        pacer = Pacer(seconds, PASSES) if on_gpu else None
        for number in range(PASSES if runs else 0):
            if number and limit.left <= 0:
                return
            # New copies, so that each pass has its inputs at other addresses.
            self.passes.append(time_pass(runs, copies(self.case, False), seconds / PASSES, pacer))
        self.finished = True

    def _check(self, name: str, function: Function) -> float:
        """The distance of a direction's result from the float64 result, relative to the norm of the latter.

        The call runs on the whole batch. If float64 would take too long, the output's gradient is non-zero only for
        some images, including the first and the last, and results are compared on those images.

        Raises:
            RunError: the distance exceeds the tolerance.
        """
        x, weight, dout, *bias = self.case.inputs
        images = compared_images(self.conv, CHECKED[x.device.type])
        part = torch.tensor(images, device=x.device)
        checked = torch.zeros_like(dout).index_copy_(0, part, dout[part]) if len(images) < len(x) else dout
        with _without_cudnn():
            wide = [t.double() for t in (x[part], weight, dout[part], *bias)]
            of_part = replace(self.conv, input=(len(images), *self.conv.input[1:]))
            expected = DIRECTIONS[name](of_part, *wide)

        def judged(output: Tensor, *inputs: Tensor) -> Tensor:
            return output if name == WEIGHT else output[part]

        case = replace(self.case, inputs=(x, weight, checked, *bias), judged=judged)
        return check(case, name, function, False, [expected])

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of convolutions.json, one for each timed direction."""
        for name in self.errors:
            timings = [found[name] for found in self.passes if name in found]
            if timings:
                timing = joined(timings)
                yield {
                    "name": self.conv.name, "direction": name, "dtype": str(self.dtype).removeprefix("torch."),
                    "count": len(self.modules), "modules": list(self.modules),
                    **asdict(self.conv), "output": self.conv.output,
                    "milliseconds": 1e3 * timing.median,
                    "spread": [1e3 * value for value in timing.spread],
                    "passes": [1e3 * value for value in timing.medians],
                    "calls": timing.calls,
                    "host_milliseconds": None if timing.host is None else 1e3 * timing.host,
                    "teraflops": self.conv.operations / timing.median / 1e12,
                    "operations": self.conv.operations,
                    "bytes": self.conv.least_bytes(name, self.dtype.itemsize),
                    "error": self.errors[name],
                }  # fmt: skip


def in_words(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def compared_images(conv: Convolution, operations: float) -> list[int]:
    """Batch rows that a check compares: as many as `operations` allows, evenly spaced from first to last."""
    batch = conv.input[0]
    number = min(batch, max(CHECKED_IMAGES, int(operations * batch / conv.operations)))
    return torch.linspace(0, batch - 1, number, dtype=torch.float64).round().long().tolist()


def _random(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Random numbers in channels-last layout."""
    return torch.empty(shape, device=device, dtype=dtype, memory_format=torch.channels_last).normal_()


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Context manager: PyTorch computes GPU convolutions without cuDNN, as matrix products."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
