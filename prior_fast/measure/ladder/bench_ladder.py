"""`prior-fast bench train`: measures the rungs of a training step and prints one table."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prior_fast.batch import PackedBatch
from prior_fast.config import RunConfig, apply_overrides, preset, to_dict, validate_config
from prior_fast.console import progress, stdout
from prior_fast.errors import RunError, UsageError
from prior_fast.files import write_json, write_text
from prior_fast.hardware.machine import describe_machine
from prior_fast.measure.ladder.batches import VOCABULARY, dataset_batches, made_up_batches
from prior_fast.measure.ladder.generated import compiled_head_calls
from prior_fast.measure.ladder.measure import Measured, MeasurePlan, measure
from prior_fast.measure.ladder.report import draw, make_rows, markdown, text_table
from prior_fast.measure.ladder.rungs import LADDER, Rung, RungStep
from prior_fast.model.prior import PRIORModel
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.distributed import choose_device
from prior_fast.training.stages import StepContext

BATCHES = 4  # used by the steps in turn
# Batches, and pairs per batch, on which rungs are compared in float32: plain code needs an estimated half gigabyte per
# pair.
CHECKED, CHECKED_PAIRS = 2, 32
SEED = 0  # of a step's noise
NOTES = (
    "ms: median of the timed steps, rungs taking turns; quartiles: where the middle half lies.",
    "times (a): how many times faster than (a); CPU time: the same ratio of the CPU time of all threads.",
    "ops: op calls below autograd in a step (counted without torch.compile); head ops: those of forward and backward "
    "without encoders and decoders.",
    "host reads: times that forward and backward wait for a value; on a CPU, times that they would wait on a GPU.",
    "Peak memory is measured on GPUs only.",
)


@dataclass(frozen=True)
class LadderOptions:
    """Options of `prior-fast bench train`; see its --help.

    rungs: letters; (a) is always included; empty: all rungs that training may use on the device.
    """

    preset: str = "paper"
    stage: int = 3
    batch: int = 16
    steps: int = 10
    warm_up: int = 2
    width_divisor: int = 1
    mean_tokens: int = 90
    data: Path | None = None
    out: Path | None = None
    rungs: str = ""
    count_compiled: bool = False
    settings: Sequence[str] = ()


def run_ladder(options: LadderOptions, make: Callable[..., RungStep] = RungStep) -> dict[str, Any]:
    """Measure, print the table, write train.json, train.md and train.png to `out`; returns the content of train.json.

    make: makes a rung's step from rung, model, stage, config and device.

    Raises:
        UsageError: an option or setting can't be used.
        RunError: a rung does not compute what (a) computes; raised after the others were measured and written.
    """
    config = make_config(options)
    device = choose_device(config.device)
    rungs, skipped = choose_rungs(options.rungs, device)
    batches, vocabulary = make_batches(options, config, BATCHES)
    small = dataclasses.replace(config, batch_size=min(config.batch_size, CHECKED_PAIRS))
    checked, _ = make_batches(options, small, CHECKED)
    torch.manual_seed(config.seed)
    model = PRIORModel(config.model, vocabulary)
    described = {"machine": describe_machine(), "options": describe(options, config, batches, device)}
    context = StepContext(config.model.bank.tau_start, SEED)

    def make_step(rung: Rung) -> RungStep:
        return make(rung, model, options.stage, config, device)

    with progress() as bar:
        task = bar.add_task("", total=len(rungs) + options.steps - 1)
        timed, compared = ([batch.to(device) for batch in some] for some in (batches, checked))
        plan = MeasurePlan(timed, compared, context, options.steps, options.warm_up)

        def advance(name: str) -> None:
            bar.update(task, description=name, advance=1)

        def save(results: Sequence[Measured]) -> None:
            rows = make_rows(results, options.batch, skipped)
            if options.out is not None:
                write_json(options.out / "train.json", {**described, "complete": False, "rungs": rows})

        with cudnn_for_training(config.cudnn_benchmark):
            results = measure(rungs, make_step, plan, advance, save)
    rows = make_rows(results, options.batch, skipped)
    report = {**described, "complete": True, "rungs": rows}
    if options.count_compiled:
        report["compiled_head"] = compiled_head(make_step(LADDER[-1]), timed[0], context, rows[0]["head_ops"])
    show(report, options.out)
    problems = [result.problem for result in results if result.problem]
    if problems:
        raise RunError("; ".join(problems))
    return report


def compiled_head(step: RungStep, batch: PackedBatch, context: StepContext, plain_ops: int) -> dict[str, Any]:
    """The number of calls in the compiled head, and the ratio of (a)'s `plain_ops` to it."""
    calls = compiled_head_calls(step, batch, context)
    return {"calls": calls, "ratio": plain_ops / calls}


def make_config(options: LadderOptions) -> RunConfig:
    """The config of the preset with random weights and every width divided, changed by the settings.

    Raises:
        UsageError: the divisor does not divide a width, or an option or setting can't be used.
    """
    for name, value, least in (
        ("--batch", options.batch, 2),
        ("--steps", options.steps, 1),
        ("--warm-up", options.warm_up, 1),
        ("--width-divisor", options.width_divisor, 1),
    ):
        if value < least:
            raise UsageError(f"{name} {value}: must be at least {least}")
    config = preset(options.preset)
    n = options.width_divisor
    model = config.model
    model = dataclasses.replace(
        model,
        image=dataclasses.replace(model.image, width=_divide(model.image.width, n), weights="random"),
        text=dataclasses.replace(
            model.text,
            hidden_size=_divide(model.text.hidden_size, n),
            intermediate_size=_divide(model.text.intermediate_size, n),
            weights="random",
        ),
        sentence_decoder=dataclasses.replace(
            model.sentence_decoder, intermediate_size=_divide(model.sentence_decoder.intermediate_size, n)
        ),
        embed_dim=_divide(model.embed_dim, n),
    )
    config = dataclasses.replace(config, model=model, batch_size=options.batch)
    config = apply_overrides(config, list(options.settings))
    if config.batch_size != options.batch:
        raise UsageError("batch_size: use --batch")
    validate_config(config)
    return config


def _divide(width: int, divisor: int) -> int:
    if width % divisor:
        raise UsageError(f"--width-divisor {divisor}: does not divide the width {width}")
    return width // divisor


def make_batches(options: LadderOptions, config: RunConfig, number: int) -> tuple[list[PackedBatch], int]:
    """`number` batches and their vocabulary size; made-up batches use that of Bio_ClinicalBERT."""
    if options.data is not None:
        return dataset_batches(config, options.stage, number, options.data)
    return made_up_batches(config, number, options.mean_tokens, VOCABULARY, config.seed), VOCABULARY


def choose_rungs(letters: str, device: torch.device) -> tuple[list[Rung], dict[str, str]]:
    """The rungs to measure, and the reason for each rung that is left out, by letter.

    Raises:
        UsageError: no rung has a given letter.
    """
    known = "".join(rung.key for rung in LADDER)
    unknown = [letter for letter in letters if letter not in known]
    if unknown:
        raise UsageError(f"--rungs {letters}: there is no rung {unknown[0]!r}, choose from {known}")
    rungs = [rung for rung in LADDER if rung.key in ("a", *(letters or known))]
    skipped = dict.fromkeys((rung.key for rung in LADDER if rung not in rungs), "not asked for")
    if not letters and device.type == "cpu":
        # Training compiles on GPUs only; compiling a stage on a CPU takes many minutes.
        skipped |= {rung.key: "not done on a CPU; --rungs asks for it" for rung in rungs if rung.compiled}
        rungs = [rung for rung in rungs if not rung.compiled]
    return rungs, skipped


def describe(
    options: LadderOptions, config: RunConfig, batches: Sequence[PackedBatch], device: torch.device
) -> dict[str, Any]:
    """The `options` of train.json: what was measured."""
    pairs = sum(len(batch) for batch in batches)
    return {
        **{name: getattr(options, name) for name in ("preset", "stage", "batch", "steps", "warm_up", "width_divisor")},
        "data": str(options.data or "made up"),
        "device": device.type,
        "tokens_of_a_report": sum(int(batch.cu_tokens[-1]) for batch in batches) / pairs,
        "sentences_of_a_report": sum(batch.num_sentences for batch in batches) / pairs,
        "config": to_dict(config),
    }


def show(report: dict[str, Any], out: Path | None) -> None:
    """Print the table, and write the three files to `out` unless it is None."""
    options, rows = report["options"], report["rungs"]
    width = "" if options["width_divisor"] == 1 else f", widths / {options['width_divisor']}"
    title = (
        f"stage {options['stage']}, {options['preset']}{width}, {options['batch']} pairs a step, "
        f"{options['tokens_of_a_report']:.0f} tokens a report, on {options['device']}"
    )
    notes = list(NOTES)
    if "compiled_head" in report:
        head = report["compiled_head"]
        notes.append(
            f"the compiled head makes {head['calls']} calls; the head of (a) makes {head['ratio']:.1f} times as many."
        )
    stdout.print(f"{title}\n", *text_table(rows), "", *notes, sep="\n")
    if out is not None:
        write_json(out / "train.json", report)
        write_text(out / "train.md", markdown(title, rows, notes))
        draw(out / "train.png", title, rows)
        stdout.print(f"train.json, train.md and train.png are in {out}")
