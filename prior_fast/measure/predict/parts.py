"""The parts of a training step and the calls that they consist of."""

from collections.abc import Iterable
from dataclasses import dataclass

# The names of bench/gpu/steps.py, so that a prediction stands beside its measurement.
CONVOLUTIONS = "convolutions"
NORMS = "batch norm, ReLU, pooling"
PRODUCTS = "matrix products"
LAYER_NORMS = "layer norm, dropout, GELU"
OPTIMIZER = "clipping and Adam"
ATTENTION = "softmax attention"
OWN = "Triton ops and solver"
REST = "casts, sums of biases, all else"
PARTS = (CONVOLUTIONS, NORMS, PRODUCTS, LAYER_NORMS, OPTIMIZER, ATTENTION, REST, OWN)


@dataclass(frozen=True)
class Call:
    """One call of a step: a kernel, or several that share one tensor's work.

    Attributes:
        part: one of PARTS.
        kind: what sets its share of the chip's rates (`prior_fast.measure.predict.assumptions`).
        name: what it computes, in a few words.
        dtype: sets the rate of its operations.
        operations: additions and multiplications of products; 0 for element-wise work.
        bytes: least bytes that it reads and writes.
        launches: of kernels; the first is as long as the work needs, each further one has the least time of a kernel.
        narrowest: of a convolution, the smaller one of its channel counts.
        numbers: elements that element-wise arithmetic computes.
    """

    part: str
    kind: str
    name: str
    dtype: str
    operations: int = 0
    bytes: int = 0
    launches: int = 1
    narrowest: int = 0
    numbers: int = 0


@dataclass(frozen=True)
class Totals:
    """Sums over the calls of a part."""

    operations: int = 0
    bytes: int = 0
    launches: int = 0


def totals(calls: Iterable[Call]) -> dict[str, Totals]:
    """The work of each part, in the order of PARTS."""
    sums = {part: [0, 0, 0] for part in PARTS}
    for call in calls:
        own = sums[call.part]
        own[0] += call.operations
        own[1] += call.bytes
        own[2] += call.launches
    return {part: Totals(*own) for part, own in sums.items()}
