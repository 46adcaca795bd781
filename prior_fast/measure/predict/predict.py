"""`prior-fast bench predict`: what each part of a training step should take on a chip, from counted work."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prior_fast.config import RunConfig, to_dict
from prior_fast.console import busy
from prior_fast.errors import UsageError
from prior_fast.hardware.chips import BOARDS, Speeds
from prior_fast.hardware.machine import describe_machine
from prior_fast.measure.ladder.bench_ladder import LadderOptions, make_config
from prior_fast.measure.predict.assumptions import Assumptions, GpuAssumptions, described
from prior_fast.measure.predict.calibrate import calibrate
from prior_fast.measure.predict.convolutions import transposed_products
from prior_fast.measure.predict.count import count_step, update_kernel
from prior_fast.measure.predict.measured import Milliseconds, measure_parts, read_parts
from prior_fast.measure.predict.parts import PARTS, Call, totals
from prior_fast.measure.roofline import better, measure_ceilings
from prior_fast.spelling import nearest
from prior_fast.training.step import compiles, runs_in_bf16

THIS_CPU = "cpu"
CHIPS = {chip.name.lower(): chip for chip in BOARDS}


@dataclass(frozen=True)
class PredictOptions:
    """Options of `prior-fast bench predict`; see its --help.

    chip: names of GPUs separated by commas, or "cpu".
    """

    chip: str
    preset: str = "paper"
    stage: int = 3
    batch: int = 128
    tokens: int = 90
    width_divisor: int = 1
    beside: Path | None = None
    measure: bool = False
    convolutions: bool = False
    out: Path | None = None
    settings: Sequence[str] = ()


def run_predict(options: PredictOptions) -> dict[str, Any]:
    """Count a step, predict its parts and measure them if asked to; returns the content of predict.json.

    Raises:
        UsageError: an option or setting can't be used.
    """
    names = chip_names(options.chip)
    device = "cpu" if names == [THIS_CPU] else "cuda"
    if options.beside is not None and options.measure:
        raise UsageError("--measure, --beside: choose one, the table has one column of measured times")
    if options.measure and device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--measure: this machine has no GPU; leave it out, or ask for --chip cpu")
    config = make_config(
        LadderOptions(
            options.preset,
            options.stage,
            options.batch,
            width_divisor=options.width_divisor,
            mean_tokens=options.tokens,
            settings=options.settings,
        )
    )
    if config.upsampled_conv != "cudnn":
        raise UsageError(
            f"upsampled_conv={config.upsampled_conv}: only cuDNN's convolutions are counted; leave the setting out"
        )
    beside = None if options.beside is None else read_parts(options.beside, options.stage, options.batch)
    dtype = step_dtype(config, device)
    with busy("counting the work of a step"):
        counted = count_step(config, options.stage, options.tokens, device, dtype)
    speeds: dict[str, Speeds] = {name: CHIPS[name] for name in names if name in CHIPS}
    assumptions: Assumptions = GpuAssumptions()
    measured = beside
    if device == "cpu":
        kinds = ["float32", *(["bfloat16"] if dtype == torch.bfloat16 else [])]
        with busy("measuring the rates of this CPU"):
            ceilings, rates = measure_ceilings(torch.device("cpu"), kinds), calibrate(dtype)
        if options.measure:
            measured = measure_parts(config, options.stage, options.tokens, torch.device("cpu"))
            # Other work on the machine lowers the rates: keep the higher ones.
            with busy("measuring the rates of this CPU again"):
                ceilings = better(ceilings, measure_ceilings(torch.device("cpu"), kinds))
                rates = rates.better(calibrate(dtype))
        assumptions = rates
        speeds = {THIS_CPU: ceilings}
    elif options.measure:
        measured = measure_parts(config, options.stage, options.tokens, torch.device("cuda"))
    predicted = {name: predict(counted.calls, own, assumptions) for name, own in speeds.items()}
    report: dict[str, Any] = {
        "kind": "predict",
        "options": {
            **{name: getattr(options, name) for name in ("preset", "stage", "batch", "tokens", "width_divisor")},
            "optimizer": update_kernel(config, device),
            "beside": None if options.beside is None else options.beside.name,
            "dtype": str(dtype).removeprefix("torch."),
            "form": "compiled, as in training on a GPU" if device == "cuda" else "without torch.compile",
            "config": to_dict(config),
        },
        "counted": {"tokens": counted.tokens, "sentences": counted.sentences, "parameters": counted.parameters},
        "assumptions": [
            {"name": name, "value": value, "source": source} for name, value, source in described(assumptions)
        ],
        "speeds": {name: {"bandwidth": own.bandwidth, "rates": dict(own.rates)} for name, own in speeds.items()},
        "parts": rows(counted.calls, predicted, measured),
    }
    if device == "cpu" or options.measure:
        report["machine"] = describe_machine()
    if options.convolutions:
        report["convolutions"] = transposed_products(config, options.stage, dtype, speeds)
    return report


def chip_names(words: str) -> list[str]:
    """The chips of --chip.

    Raises:
        UsageError: there is no such chip, or a GPU is asked for together with the CPU.
    """
    names = [word.strip().lower() for word in words.split(",")]
    known = (*CHIPS, THIS_CPU)
    for name in names:
        if name not in known:
            raise UsageError(f"--chip {name}{nearest(name, known) or ': choose from ' + ', '.join(known)}")
    if THIS_CPU in names and len(names) > 1:
        raise UsageError(f"--chip {words}: ask for the CPU alone, its step is another one than that of a GPU")
    return list(dict.fromkeys(names))


def step_dtype(config: RunConfig, device: str) -> torch.dtype:
    """The dtype of a step's products on a device of this kind, which need not exist.

    Raises:
        UsageError: the config asks for a step that is not counted.
    """
    if device == "cpu":
        half = runs_in_bf16(config.precision, torch.device("cpu"))
    else:
        if not compiles(config, torch.device("cuda")):
            raise UsageError(f"compile={config.compile}: only compiled steps are counted for a GPU; leave it out")
        half = config.precision != "fp32"
    return torch.bfloat16 if half else torch.float32


def predict(calls: Sequence[Call], speeds: Speeds, assumptions: Assumptions) -> Milliseconds:
    """The predicted milliseconds of each part."""
    sums: dict[str, float] = defaultdict(float)
    for call in calls:
        sums[call.part] += 1e3 * assumptions.seconds(call, speeds)
    return {part: sums[part] for part in PARTS}


def rows(calls: Sequence[Call], predicted: dict[str, Milliseconds], measured: Milliseconds | None) -> list[dict]:
    """A row for each part, the longest first."""
    work = totals(calls)
    first = next(iter(predicted.values()))
    return [
        {
            "part": part,
            **asdict(work[part]),
            "milliseconds": {name: own[part] for name, own in predicted.items()},
            "measured": None if measured is None else measured.get(part),
        }
        for part in sorted(PARTS, key=lambda part: -first[part])
    ]
