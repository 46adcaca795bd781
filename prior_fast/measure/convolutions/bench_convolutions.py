"""`prior-fast bench convolutions`: each convolution of a training step, forward and its two gradients."""

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
# Operations in float64 that a check may take; a call that is longer is compared on some of its images.
CHECKED = {"cpu": 2e9, "cuda": 5e10}
CHECKED_IMAGES = 2  # at least


@dataclass(frozen=True)
class ConvolutionOptions:
    """What `prior-fast bench convolutions` was asked for; see its --help.

    device: None leaves it to the settings.
    seconds: for each direction of a convolution, all passes together; None: as `bench kernels`.
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
    """Check and time every convolution of a step, the largest part of a step first; returns convolutions.json.

    functions: what is timed, by direction.

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
            raise UsageError(f"--{name} {value}: wants more than 0")
    make_autocast(config.precision, device)  # refuses what the device has not
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
            except RuntimeError as error:  # too little memory, say: the others go on
                sheet.add([], [f"convolution {conv.name}: {in_words(error)}"], None)
            else:
                sheet.add(trial.rows(), trial.problems, conv.name if trial.finished else None)
            sheet.save()
    if options.limit.left > 0:
        # Other work on the machine lowers what is found: a second look, and the better of the two.
        advance("ceilings of this machine")
        sheet.better(measure_ceilings(device, [described["dtype"]]))
    sheet.end()
    return sheet.report()


class Trial:
    """One convolution on numbers: each direction checked, then timed, directions taking turns.

    Attributes:
        problems: what is wrong with directions that are not timed.
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
        """Check all directions, and time those that are right.

        seconds: for each, in all passes.
        """
        for name, function in self.functions.items():
            try:
                self.errors[name] = self._check(name, function)
            except RunError as error:
                self.problems.append(str(error))
            except Exception as error:  # nothing that serves, say: the other directions go on
                self.problems.append(f"convolution {self.conv.name}: {name}: {in_words(error)}")
        runs = {name: make_run(self.case, self.functions[name], False) for name in self.errors}
        on_gpu = self.case.inputs[0].is_cuda
        pacer = Pacer(seconds, PASSES) if on_gpu else None
        for number in range(PASSES if runs else 0):
            if number and limit.left <= 0:
                return
            # New copies: inputs lie elsewhere in memory than those of the pass before.
            self.passes.append(time_pass(runs, copies(self.case, False), seconds / PASSES, pacer))
        self.finished = True

    def _check(self, name: str, function: Function) -> float:
        """The distance of a direction's result from float64, as a share of its length.

        The call is of the whole batch. Where float64 would take long, the output's gradient is zero but for some
        images, the first and the last among them, and results are compared on those.

        Raises:
            RunError: it is over the tolerance.
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
        """What convolutions.json holds of each direction that was timed."""
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
    """An error in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def compared_images(conv: Convolution, operations: float) -> list[int]:
    """Rows of the batch that a check takes: as many as the operations allow, evenly spaced from first to last."""
    batch = conv.input[0]
    number = min(batch, max(CHECKED_IMAGES, int(operations * batch / conv.operations)))
    return torch.linspace(0, batch - 1, number, dtype=torch.float64).round().long().tolist()


def _random(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Random numbers with the channels innermost."""
    return torch.empty(shape, device=device, dtype=dtype, memory_format=torch.channels_last).normal_()


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """A block in which convolutions on a GPU are made of matrix products, by PyTorch itself."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
