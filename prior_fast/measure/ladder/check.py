"""Checks that a rung computes what the first one computes and updates the parameters; rungs that fail are not timed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prior_fast.batch import PackedBatch
from prior_fast.errors import RunError
from prior_fast.measure.ladder.rungs import RungStep
from prior_fast.training.stages import StepContext

# Tolerances for loss terms and for the gradient's norm. Float32 sums are in another order, through some tens of layers
# and logits times 100; the gradient's norm includes the rounding of all activations.
TOLERANCE, GRADIENT_TOLERANCE = 5e-3, 5e-2
# Tolerance for a compiled step against the same step without the compiler, in its own precision, with dropout. Dropout
# alone changed a term by 0.17 (widths / 4, 16 pairs, bfloat16); a wrong kernel changes it by more, or to NaN.
COMPILED_TOLERANCE = 0.3
Values = list[dict[str, float]]


def evaluate(step: RungStep, batches: Sequence[PackedBatch], context: StepContext) -> Values:
    """The terms of each batch and the gradient's norm, without dropout and autocast, with the model's noise.

    A compiled rung runs without torch.compile here: float32 without dropout would need a second graph, which takes
    minutes to compile and is never timed. `compare_compiled` checks the graph that is timed.

    Raises:
        RunError: the loss has no gradient.
    """
    values = []
    step.same_noise = True
    with without_dropout(step.model), full_float32(), torch.compiler.set_stance("force_eager"):
        for batch in batches:
            terms = step.terms(batch, context)
            if not terms["loss"].requires_grad:
                raise RunError(f"rung {step.rung.key} ({step.rung.name}) returns a loss without a gradient")
            terms["loss"].backward()
            found = {name: float(term.detach()) for name, term in terms.items()}
            values.append(found | {"gradient": gradient_length(step.parameters)})
            step.model.zero_grad()
    step.same_noise = False
    return values


def gradient_length(parameters: Mapping[str, nn.Parameter]) -> float:
    """The Euclidean norm of the gradient of all parameters."""
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


def compare(
    step: RungStep,
    values: Values,
    expected: Values,
    tolerance: float = TOLERANCE,
    gradient_tolerance: float = GRADIENT_TOLERANCE,
) -> dict[str, float]:
    """The greatest difference of each term, relative for values above 1.

    Raises:
        RunError: a term is missing, is NaN, or differs by more than the tolerance.
    """
    worst = dict.fromkeys(expected[0], 0.0)
    for number, (own, wanted) in enumerate(zip(values, expected, strict=True)):
        if own.keys() != wanted.keys():
            raise RunError(f"rung {step.rung.key} ({step.rung.name}) returns the terms {', '.join(own)}")
        for name, value in wanted.items():
            difference = abs(own[name] - value) / max(1.0, abs(value))
            if not difference <= (gradient_tolerance if name == "gradient" else tolerance):
                raise RunError(
                    f"rung {step.rung.key} ({step.rung.name}) does not compute the same step: {name} of batch {number} "
                    f"is {own[name]:.6g}, that of plain code {value:.6g}"
                )
            worst[name] = max(worst[name], difference)
    return worst


def plain_terms_of(step: RungStep, batch: PackedBatch, context: StepContext) -> dict[str, float]:
    """The terms of a compiled step, computed without torch.compile in the step's own precision, with dropout."""
    with torch.no_grad(), step.autocast, torch.compiler.set_stance("force_eager"):
        return {name: float(term) for name, term in step.terms(batch, context).items()}


def compare_compiled(step: RungStep, found: Mapping[str, Tensor], expected: Mapping[str, float]) -> dict[str, float]:
    """The difference of each term of a compiled step from the same step without the compiler, as in `compare`.

    Raises:
        RunError: a difference is above COMPILED_TOLERANCE.
    """
    values = [{name: float(term.detach()) for name, term in found.items()}]
    return compare(step, values, [dict(expected)], COMPILED_TOLERANCE)


def require_movement(step: RungStep, before: Mapping[str, Tensor]) -> None:
    """Raise RunError unless the steps since `snapshot` have changed the parameters."""
    after = snapshot(step)
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    if still:
        raise RunError(f"rung {step.rung.key} ({step.rung.name}) does not train: its steps did not move {still[0]}")


def snapshot(step: RungStep) -> dict[str, Tensor]:
    """The largest parameter of each part that the stage trains, copied to the host."""
    largest: dict[str, tuple[int, str]] = {}
    for name, parameter in step.parameters.items():
        part = name.split(".")[0]
        largest[part] = max(largest.get(part, (0, "")), (parameter.numel(), name))
    return {name: step.parameters[name].detach().cpu().clone() for _, name in largest.values()}


@contextmanager
def full_float32() -> Iterator[None]:
    """Context manager: cuDNN's float32 convolutions don't round their inputs to tf32; nothing else changes.

    `torch.backends.cudnn.flags` would turn off every flag that is not passed, including cuDNN itself.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Context manager: the dropout layers of `model` drop nothing."""
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    rates = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, rate in zip(layers, rates):
            layer.p = rate
