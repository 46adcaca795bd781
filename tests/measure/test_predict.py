"""Predicted parts of a step agree with the measured ones, and counted work with independent formulas."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import torch
from torch import nn

from prior_fast.config import RunConfig
from prior_fast.errors import UsageError
from prior_fast.measure.convolutions.found import DATA, FORWARD, WEIGHT, collect
from prior_fast.measure.ladder.batches import VOCABULARY, made_up_batches
from prior_fast.measure.ladder.bench_ladder import LadderOptions, make_config
from prior_fast.measure.predict import measured
from prior_fast.measure.predict.assumptions import GpuAssumptions, described
from prior_fast.measure.predict.convolutions import sizes, transposed_products
from prior_fast.measure.predict.count import Counted, count_step, update_kernel
from prior_fast.measure.predict.measured import least_by_part, measure_parts, read_parts
from prior_fast.measure.predict.optimizer import update_calls
from prior_fast.measure.predict.parts import (
    CONVOLUTIONS,
    LAYER_NORMS,
    NORMS,
    OPTIMIZER,
    PARTS,
    PRODUCTS,
    REST,
    Call,
    totals,
)
from prior_fast.measure.predict.predict import CHIPS, PredictOptions, chip_names, predict, run_predict, step_dtype
from prior_fast.training.operations import sizes_of, step_operations
from prior_fast.training.recorded_text import filled
from tests.ops.segment_backends import threads

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "bench/results/nvidia-h200/steps.json"
FORMS = ROOT / "bench/results/nvidia-h200/convolution-forms.json"


def paper(stage: int) -> RunConfig:
    # What was measured had torch's optimizer.
    return make_config(LadderOptions("paper", stage, 128, settings=("optimizer_kernel=torch",)))


@pytest.fixture(scope="module")
def steps() -> dict[int, Counted]:
    return {stage: count_step(paper(stage), stage, 90, "cuda", torch.bfloat16) for stage in (1, 3)}


@pytest.mark.parametrize("stage", [1, 3])
def test_every_part_is_within_a_factor_of_the_measured_one(stage: int, steps: dict[int, Counted]) -> None:
    measured = read_parts(STEPS, stage, 128)
    predicted = predict(steps[stage].calls, CHIPS["h200"], GpuAssumptions())
    assert set(predicted) == set(measured) == set(PARTS)
    far = {
        part: predicted[part] / measured[part] for part in PARTS if not 1 / 1.5 < predicted[part] / measured[part] < 1.5
    }
    assert far == {}
    assert sum(predicted.values()) == pytest.approx(sum(measured.values()), rel=0.1)


@pytest.mark.parametrize("stage", [1, 3])
def test_the_operations_are_those_of_the_formula(stage: int, steps: dict[int, Counted]) -> None:
    """The formula leaves out filler and channels that a GPU's form of a convolution adds."""
    config = paper(stage)
    (batch,) = made_up_batches(config, 1, 90, VOCABULARY, config.seed)
    expected = step_operations(config.model, stage, sizes_of([batch]))
    counted = sum(call.operations for call in steps[stage].calls)
    assert expected < counted < 1.06 * expected


def test_the_work_of_single_parts(steps: dict[int, Counted]) -> None:
    work = totals(steps[3].calls)
    # Batch norm was counted in the code that torch.compile generated: 52 GB.
    assert work[NORMS].bytes == pytest.approx(52e9, rel=0.15)
    # 40 bytes a trained parameter, and 12 for each one that a product of a recorded part reads in bfloat16.
    parameters = steps[3].parameters
    assert 40 * parameters < work[OPTIMIZER].bytes < 52 * parameters
    rows = len(filled(made_up_batches(paper(3), 1, 90, VOCABULARY, 0)[0]).token_ids)
    # BERT's GELUs take ten bytes an element, and the decoder's queries are rows of the same widths.
    gelu = sum(call.bytes for call in steps[3].calls if call.name.startswith("GELU"))
    assert gelu == 10 * 3072 * (12 * rows + 6 * 128 * 16)
    assert work[LAYER_NORMS].bytes > gelu


@pytest.fixture(scope="module")
def small() -> Iterator[RunConfig]:
    settings = [
        "precision=fp32",
        "model.sentence_decoder.layers=1",
        "model.text.layers=2",
        "model.image.depths=1,1,1,1",
    ]
    yield make_config(LadderOptions("paper", 3, 6, width_divisor=8, settings=settings))


def test_gradients_by_formula_take_what_autograd_takes(small: RunConfig) -> None:
    """The compiled step's backward pass follows from its forward pass; the plain step's is run."""
    gpu, cpu = (count_step(small, 1, 40, device, torch.float32).calls for device in ("cuda", "cpu"))

    def largest(calls: list[Call], part: str) -> Counter[int]:
        """The operations of each call of a part but the stem and small ones, which have other forms on a GPU."""
        return Counter(c.operations for c in calls if c.part == part and c.operations > 4e6 and c.narrowest != 1)

    for part in (CONVOLUTIONS, PRODUCTS):
        own, other = largest(gpu, part), largest(cpu, part)
        assert other.total() > 20
        # The stem of 8 channels is the only other call.
        assert (own - other).total() <= 2 and (other - own).total() == 0, (own - other, other - own)


def test_counting_computes_nothing_and_leaves_no_trace(small: RunConfig) -> None:
    before = torch.get_rng_state(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    first = count_step(small, 3, 40, "cuda", torch.bfloat16)
    assert first == count_step(small, 3, 40, "cuda", torch.bfloat16)
    assert (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")) == before[1:]
    assert torch.zeros(2).sum().item() == 0  # tensors have data again


def test_more_pairs_and_a_slower_chip_take_longer(small: RunConfig) -> None:
    larger = dataclasses.replace(small, batch_size=60)
    few, many = (count_step(config, 3, 40, "cuda", torch.float32).calls for config in (small, larger))
    for part, work in totals(many).items():
        assert work.bytes >= totals(few)[part].bytes
    times = {name: sum(predict(many, chip, GpuAssumptions()).values()) for name, chip in CHIPS.items()}
    assert times["h200"] < times["h100"] < times["a100-80"] < times["a100-40"]


def test_a_call_takes_the_longest_of_memory_arithmetic_and_launch() -> None:
    chip, own = CHIPS["a100-80"], GpuAssumptions()

    def seconds(**work: int) -> float:
        return own.seconds(Call(PRODUCTS, "product", "", "bfloat16", **work), chip)

    assert seconds(operations=312 * 10**12) == pytest.approx(1 / own.product)
    assert seconds(bytes=2040 * 10**9) == pytest.approx(1 / own.product_bytes, rel=1e-3)
    assert seconds(operations=1, bytes=1) == own.launch
    assert seconds(operations=1, launches=3) == pytest.approx(3 * own.launch)
    assert seconds(launches=0) == 0


def test_shares_of_convolutions_are_the_measured_ones() -> None:
    """The rates of the forms named in the assumptions, from their shapes and milliseconds."""
    forms, batch = json.loads(FORMS.read_text())["forms"], 128

    def share(name: str, pixels: int, taps: int, inputs: int, outputs: int) -> list[float]:
        operations = 2 * batch * pixels * taps * inputs * outputs
        return [operations / (1e-3 * time) / CHIPS["h200"].rates["bfloat16"] for time in forms[name]]

    wide = [
        *share("1.1 A convT4x4 1536->768 7", 7**2, 16, 1536, 768),
        *share("1.2 3x3 768 14", 14**2, 9, 768, 768),
        *share("2.1 A convT4x4 768->384 14", 14**2, 16, 768, 384),
        *share("2.2 3x3 384 28", 28**2, 9, 384, 384),
    ]
    middle = [*share("3.1 A convT4x4 384->192 28", 28**2, 16, 384, 192), *share("3.2 3x3 192 56", 56**2, 9, 192, 192)]
    narrow = [
        *share("4.1 A convT4x4 192->96 56", 56**2, 16, 192, 96),
        *share("4.2 3x3 96 112", 112**2, 9, 96, 96),
        *share("5.2 3x3 padded to 64", 224**2, 9, 64, 64),
    ]
    few = [*share("5.1 A convT4x4 96->48 112", 112**2, 16, 96, 48), *share("5.2 3x3 48 224", 224**2, 9, 48, 48)]
    own = GpuAssumptions()
    assumed = (own.convolution_384, own.convolution_192, own.convolution_64, own.convolution_0)
    assert [median(found) for found in (wide, middle, narrow, few)] == pytest.approx(list(assumed), rel=0.05)


def test_every_assumption_names_a_committed_file() -> None:
    for name, value, source in described(GpuAssumptions()):
        files = [word.strip(",:") for word in source.split() if word.startswith("bench/results/")]
        assert len(files) == 1 and (ROOT / files[0]).exists(), name
        assert value > 0


def test_transposed_convolutions_as_products() -> None:
    config = make_config(LadderOptions("paper", 3, 4))
    found = [conv for conv in collect(config, 3, compiled=True) if conv.transposed]
    assert len(found) == 5
    for conv in found:
        for direction in (FORWARD, DATA, WEIGHT):
            assert 2 * math.prod(sizes(conv, direction)) == conv.operations
    # 7x7 pixels of 1536 channels to 14x14 of 768: each output pixel meets 4 of the 16 taps.
    assert sizes(found[0], FORWARD) == (4 * 14**2, 768, 4 * 1536)
    assert sizes(found[0], DATA) == (4 * 7**2, 1536, 16 * 768)
    assert sizes(found[0], WEIGHT) == (16 * 768, 1536, 4 * 7**2)
    rows = transposed_products(config, 3, torch.bfloat16, CHIPS)
    assert len(rows) == 15
    for row in rows:
        for name, least in row["least"].items():
            memory, arithmetic = row["bytes"] / CHIPS[name].bandwidth, row["operations"] / CHIPS[name].rates["bfloat16"]
            assert least["milliseconds"] == pytest.approx(1e3 * max(memory, arithmetic))
    assert transposed_products(make_config(LadderOptions("paper", 1, 4)), 1, torch.bfloat16, CHIPS) == []


def test_an_update_in_both_forms() -> None:
    torch_bytes = sum(call.bytes for call in update_calls(1000, 600, "torch", clips=True))
    assert torch_bytes == 1000 * (4 + 8 + 28) + 600 * 12
    assert sum(call.bytes for call in update_calls(1000, 0, "torch", clips=False)) == 1000 * (4 + 28)
    fused = update_calls(1000, 600, "triton", clips=True)
    # Gradients twice, of narrowed weights in two bytes; parameter and moments in and out; the copies.
    assert sum(call.bytes for call in fused) == 2 * (400 * 4 + 600 * 2) + 24 * 1000 + 2 * 600
    assert {call.part for call in fused} == {OPTIMIZER}
    assert [call.launches for call in fused] == [3, 2]
    assert sum(call.launches for call in update_calls(1000, 0, "triton", clips=True)) == 3
    assert [update_kernel(paper(1), kind) for kind in ("cuda", "cpu")] == ["torch", "torch"]
    usual = make_config(LadderOptions("paper", 1, 128))
    assert [update_kernel(usual, kind) for kind in ("cuda", "cpu")] == ["triton", "torch"]
    each = update_calls(1000, 0, "torch", clips=True, tensors=[300, 700])
    assert [call.launches for call in each] == [2, 2, 2]
    with pytest.raises(UsageError, match="optimizer kernel 'trito': did you mean 'triton'"):
        update_calls(1, 0, "trito", clips=True)  # type: ignore[arg-type]


def test_the_narrowed_weights_are_those_of_recorded_parts(steps: dict[int, Counted]) -> None:
    copies = {stage: _copied(steps[stage]) for stage in steps}
    # BERT's products: 12 layers of four square matrices and two of four times the width.
    assert copies[1] > 12 * 768**2 * 12
    assert copies[1] < copies[3] < steps[3].parameters


def _copied(counted: Counted) -> float:
    return next(call.bytes for call in counted.calls if call.name.startswith("copies of weights")) / 6


def test_the_least_time_of_each_call() -> None:
    steps = [[(NORMS, 3.0), (REST, 1.0), (NORMS, 2.0)], [(NORMS, 1.0), (REST, 4.0), (NORMS, 5.0)]]
    assert least_by_part(steps) == {NORMS: 3.0, REST: 1.0}
    differ = [steps[0], [*steps[1], (REST, 0.5)]]
    found = least_by_part(differ)
    assert (found[NORMS], found[REST]) == (5.0, 1.0)


def test_chips_by_name() -> None:
    assert chip_names("H200, a100-80,h200") == ["h200", "a100-80"]
    with pytest.raises(UsageError, match="--chip h20: did you mean 'h200'"):
        chip_names("h20")
    with pytest.raises(UsageError, match="ask for the CPU alone"):
        chip_names("cpu,h200")


def test_a_step_that_is_not_counted() -> None:
    config = dataclasses.replace(paper(3), compile="off")
    with pytest.raises(UsageError, match="upsampled_conv=triton: only cuDNN's convolutions are counted"):
        run_predict(PredictOptions("h200", settings=("upsampled_conv=triton",)))
    with pytest.raises(UsageError, match="compile=off"):
        step_dtype(config, "cuda")
    assert step_dtype(dataclasses.replace(paper(3), precision="fp32"), "cuda") == torch.float32


def test_files_without_the_parts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no parts of stage 2 at batch 128; it has stage 1 at batch 128, stage 3"):
        read_parts(STEPS, 2, 128)
    path = tmp_path / "steps.json"
    path.write_text("[]")
    with pytest.raises(UsageError, match=r"is no steps\.json"):
        read_parts(path, 3, 128)


def test_calls_of_parts_that_run_at_once_in_training_are_measured_too(
    small: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "WARM_UP", 0)
    monkeypatch.setattr(measured, "PROFILED", 1)
    with threads(2):
        found = measure_parts(small, 3, 40, torch.device("cpu"))
    assert set(found) == set(PARTS)
    # BERT would run in a thread that the profiler does not see.
    assert min(found[part] for part in PARTS) > 0


def test_the_plain_step_is_counted_call_by_call(small: RunConfig) -> None:
    found = count_step(small, 3, 40, "cpu", torch.float32).calls
    calls = Counter(call.name for call in found)
    with torch.device("meta"):
        from prior_fast.model.prior import PRIORModel

        model = PRIORModel(small.model, VOCABULARY)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert calls["convolution"] == convolutions
    # The images need no gradient.
    assert calls["convolution_backward"] == 2 * convolutions - 1
    assert calls["gelu"] == calls["gelu_backward"] == 3
    (batch,) = made_up_batches(small, 1, 40, VOCABULARY, small.seed)
    weights = small.model.text.heads * int(batch.cu_tokens.diff().square().sum())
    width = small.model.text.hidden_size // small.model.text.heads
    attention = [(call.operations, call.numbers) for call in found if call.name.startswith("report_attention")]
    assert sorted(attention) == sorted(2 * [(4 * width * weights, weights), (10 * width * weights, weights)])
