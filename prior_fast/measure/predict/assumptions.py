"""What a prediction assumes of a chip, each number with its source, and the least time of a call by it."""

from dataclasses import dataclass, field, fields
from typing import Any

from prior_fast.hardware.chips import Speeds
from prior_fast.measure.predict.parts import OPTIMIZER, Call

STEPS = "bench/results/nvidia-h200/steps.json"
FORMS = "bench/results/nvidia-h200/convolution-forms.json"
KERNELS = "bench/results/nvidia-h200/kernels.json"
KERNELS_2 = "bench/results/nvidia-h200/kernels-2.json"


def _from(source: str, value: float) -> Any:
    return field(default=value, metadata={"source": source})


@dataclass(frozen=True)
class GpuAssumptions:
    """Shares of a GPU's rates (`prior_fast.hardware.chips`) that kinds of kernels reach, and the time of a launch.

    Measured on an H200. For another GPU they are assumed to be the same shares of its own rates.
    """

    element_wise: float = _from(f"share of the bandwidth; {STEPS}: Adam's kernel, 28 bytes a parameter", 0.72)
    reduction: float = _from(f"share of the bandwidth; {STEPS}: triton_red_fused_sum_1, sums of biases", 0.52)
    product: float = _from(f"share of the rate; {STEPS}: products of stage 1 with their operations", 0.70)
    product_bytes: float = _from(f"share of the bandwidth; {FORMS}: products of the last convolution", 0.68)
    convolution_384: float = _from(f"share of the rate, 384 channels or more; {FORMS}: forms 1.1 A to 2.2", 0.96)
    convolution_192: float = _from(f"share of the rate, 192 to 383 channels; {FORMS}: forms 3.1 A, 3.2", 0.86)
    convolution_64: float = _from(f"share of the rate, 64 to 191 channels; {FORMS}: forms 4.1 A to 5.2 padded", 0.65)
    convolution_0: float = _from(f"share of the rate, fewer channels; {FORMS}: forms 5.1 A, 5.2", 0.29)
    convolution_bytes: float = _from(f"share of the bandwidth; {STEPS}: convolutions of stage 1", 0.85)
    attention: float = _from(f"share of the limit; {STEPS}: _packed_attention_fwd_kernel of stage 1", 0.38)
    attention_gradient: float = _from(f"share of the limit; {STEPS}: _packed_attention_bwd_tiles_kernel", 0.175)
    own: float = _from(f"share of the limit, half precision; {KERNELS}: sigmoid_attention", 0.30)
    own_float32: float = _from(f"share of the limit, float32; {STEPS}: _sigmoid_attention kernels of stage 3", 0.025)
    own_rows: float = _from(f"share of the bandwidth, ops without products; {KERNELS_2}: segment_mean, float32", 0.45)
    fused: float = _from(f"launches of a compiled step for each small call of the plain one; {STEPS}: launches", 0.60)
    launch: float = _from(f"seconds of the shortest kernel; {STEPS}: kernels of 'all else' outside the table", 2.5e-6)

    def seconds(self, call: Call, speeds: Speeds) -> float:
        """The predicted seconds of a call: the longest of arithmetic, memory and the launch, then further launches."""
        memory, arithmetic = self._shares(call)
        least = call.bytes / (speeds.bandwidth * memory)
        if call.operations:
            least = max(least, call.operations / (speeds.rates[call.dtype] * arithmetic))
        if call.launches:
            least = max(least, self.launch) + (call.launches - 1) * self.launch
        return least * (self.fused if call.kind == "small" else 1.0)

    def _shares(self, call: Call) -> tuple[float, float]:
        """The shares of bandwidth and of the arithmetic rate."""
        if call.kind == "product":
            return self.product_bytes, self.product
        if call.kind == "convolution":
            return self.convolution_bytes, self._convolution(call.narrowest)
        if call.kind == "own":
            if not call.operations:
                return self.own_rows, self.own_rows
            share = self.own_float32 if call.dtype == "float32" else self.own
            return share, share
        share = {
            "attention": self.attention,
            "attention gradient": self.attention_gradient,
            "reduction": self.reduction,
        }.get(call.kind, self.element_wise)
        return share, share

    def _convolution(self, channels: int) -> float:
        if channels >= 192:
            return self.convolution_384 if channels >= 384 else self.convolution_192
        return self.convolution_64 if channels >= 64 else self.convolution_0


CACHE = 2**24  # bytes


def _here(call: str) -> Any:
    return field(metadata={"source": f"measured here: {call}"})


@dataclass(frozen=True)
class CpuAssumptions:
    """Rates of kinds of calls on a CPU, without torch.compile, measured by calls of common sizes.

    `prior_fast.measure.predict.calibrate` makes the calls. They are not those of the step that is predicted. Of a call
    that moves less than 16 MB, half of the bytes are assumed to be in a cache, as results of the call before.

    dtype: of the products, convolutions and attention that were measured.
    """

    dtype: str
    memory: float = _here("bytes a second, x + y of 64 MB each")
    cache: float = _here("bytes a second, x + y of 4 MB each, again and again")
    random: float = _here("random numbers a second, bernoulli_ of a million")
    gelu: float = _here("values or gradients of GELU a second, of a million")
    product: float = _here("operations a second, [1440, 256] by [256, 1024]")
    convolution: float = _here("operations a second, 3x3, 16 images, 64 channels of 28x28 and 16 of 56x56, gradients")
    attention: float = _here("operations a second of wide heads, 16 reports of 15 to 165 tokens, with gradients")
    weights: float = _here("attention's weights a second, by heads of widths 16 and 64")
    update: float = _here("bytes a second, clipping and Adam of 4 million numbers")
    update_call: float = _here("seconds of a call for a tensor, clipping and Adam of small tensors")
    call: float = _here("seconds of a call, layers of 16 numbers with gradients")

    def seconds(self, call: Call, speeds: Speeds) -> float:
        """The predicted seconds of a call: the longer of arithmetic and memory, and the call itself."""
        if call.part == OPTIMIZER:
            return call.bytes / self.update + call.launches * self.update_call
        work = call.bytes / self.memory
        if call.bytes < CACHE * call.launches:
            work = (work + call.bytes / self.cache) / 2
        if call.operations:
            # In another dtype than the measured one it is as much slower as a large product.
            rate = getattr(self, call.kind, self.product) * speeds.rates[call.dtype] / speeds.rates[self.dtype]
            work = max(work, call.operations / rate)
        if call.kind == "attention":
            work += call.numbers / self.weights
        elif call.kind in ("random", "gelu"):
            work = max(work, call.numbers / getattr(self, call.kind))
        return work + call.launches * self.call

    def better(self, other: "CpuAssumptions") -> "CpuAssumptions":
        """The faster ones of two measurements of one machine."""
        names = [f.name for f in fields(self) if "source" in f.metadata]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        # All are rates but the seconds of calls.
        best = {name: min(pair) if name in ("call", "update_call") else max(pair) for name, pair in pairs.items()}
        return CpuAssumptions(self.dtype, **best)


Assumptions = GpuAssumptions | CpuAssumptions


def described(assumptions: Assumptions) -> list[tuple[str, float, str]]:
    """Name, value and source of each assumption."""
    return [
        (f.name, getattr(assumptions, f.name), f.metadata["source"])
        for f in fields(assumptions)
        if "source" in f.metadata
    ]
