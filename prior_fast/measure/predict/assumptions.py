"""What a prediction assumes of a chip, each number with its source, and the least time of a call by it."""

from dataclasses import dataclass, field, fields
from typing import Any

from prior_fast.hardware.chips import Speeds
from prior_fast.measure.predict.parts import Call

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


CPU = "bench/results/cpu-2-cores/predict.json"
CACHE = 2**24  # bytes


@dataclass(frozen=True)
class CpuAssumptions:
    """Shares of a CPU's measured ceilings that kinds of calls reach, without torch.compile. One core of an EPYC."""

    element_wise: float = _from(f"share of the bandwidth; {CPU}: batch norm", 0.90)
    cached: float = _from(f"the same for calls that move less than 16 MB; {CPU}: all else", 2.0)
    random: float = _from(f"random numbers a second; {CPU}: dropout's masks", 1.3e8)
    gelu: float = _from(f"values or gradients of GELU a second; {CPU}", 9e8)
    product: float = _from(f"share of the rate; {CPU}: matrix products", 0.55)
    convolution: float = _from(f"share of the rate of products; {CPU}: convolutions", 0.27)
    attention: float = _from(f"share of the rate of products; {CPU}: report_attention", 0.07)
    launch: float = _from(f"seconds of a call besides its work; {CPU}: all else", 1e-5)

    def seconds(self, call: Call, speeds: Speeds) -> float:
        """The predicted seconds of a call: the longer of arithmetic and memory, and the call itself."""
        share = {
            "product": self.product,
            "attention": self.attention,
            "convolution": self.convolution,
        }.get(call.kind, 1.0)
        memory = self.cached if call.bytes < CACHE * call.launches else self.element_wise
        work = call.bytes / (speeds.bandwidth * memory)
        if call.operations:
            work = max(work, call.operations / (speeds.rates[call.dtype] * share))
        if call.kind in ("random", "gelu"):
            work = max(work, call.numbers / getattr(self, call.kind))
        return work + call.launches * self.launch


Assumptions = GpuAssumptions | CpuAssumptions


def described(assumptions: Assumptions) -> list[tuple[str, float, str]]:
    """Name, value and source of each assumption."""
    return [(f.name, getattr(assumptions, f.name), f.metadata["source"]) for f in fields(assumptions)]
