"""The rates of a CPU that predictions take: what is counted for each call, and how committed predictions agree."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prior_fast.hardware.chips import Speeds
from prior_fast.measure.predict import calibrate
from prior_fast.measure.predict.assumptions import CpuAssumptions, described
from prior_fast.measure.predict.measured import read_parts
from prior_fast.measure.predict.parts import CONVOLUTIONS, LAYER_NORMS, OPTIMIZER, PARTS, REST, Call
from prior_fast.measure.roofline import Ceilings

RESULTS = Path(__file__).resolve().parents[2] / "bench/results/epyc-2-cores"
PREDICTIONS = sorted(RESULTS.glob("predict*.json"))

ONES = CpuAssumptions(
    dtype="float32",
    memory=8.0,
    cache=24.0,
    random=5.0,
    gelu=7.0,
    product=100.0,
    convolution=50.0,
    attention=20.0,
    weights=10.0,
    update=4.0,
    update_call=0.25,
    call=0.5,
)
SPEEDS: Speeds = Ceilings("a CPU", 1.0, {"float32": 100.0, "bfloat16": 400.0})


@pytest.mark.parametrize(
    ("call", "seconds"),
    [
        (Call(REST, "element-wise", "add", "float32", bytes=2**27), 2**27 / 8 + 0.5),
        # Less than 16 MB, of which a half is in a cache, also as several calls.
        (Call(REST, "element-wise", "add", "float32", bytes=48), 24 / 8 + 24 / 24 + 0.5),
        (Call(REST, "element-wise", "add", "float32", bytes=2**25, launches=4), 2**24 / 8 + 2**24 / 24 + 2),
        (Call(REST, "product", "mm", "float32", operations=1000), 10.5),
        (Call(REST, "product", "mm", "bfloat16", operations=1000), 3.0),
        (Call(REST, "product", "mm", "float32", operations=1000, bytes=2**27), 2**27 / 8 + 0.5),
        (Call(CONVOLUTIONS, "convolution", "convolution", "float32", operations=1000), 20.5),
        (Call(REST, "attention", "report_attention", "float32", operations=1000, numbers=60), 56.5),
        (Call(LAYER_NORMS, "random", "bernoulli_", "float32", numbers=100), 20.5),
        (Call(LAYER_NORMS, "gelu", "gelu", "float32", numbers=70), 10.5),
        (Call(OPTIMIZER, "element-wise", "Adam", "float32", bytes=40, launches=4), 11.0),
    ],
)
def test_the_seconds_of_a_call(call: Call, seconds: float) -> None:
    assert ONES.seconds(call, SPEEDS) == pytest.approx(seconds)


def test_the_faster_of_two_measurements() -> None:
    other = dataclasses.replace(ONES, memory=9.0, product=1.0, call=0.25, update_call=1.0)
    assert ONES.better(other) == other.better(ONES) == dataclasses.replace(ONES, memory=9.0, call=0.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_counted_for_the_timed_calls(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls with products take a second for 10^9 operations by torch's counter, and others a second each."""

    def seconds(call: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops() / 1e9 or 1.0

    monkeypatch.setattr(calibrate, "_seconds", seconds)
    found = calibrate.calibrate(dtype)
    assert found.dtype == str(dtype).removeprefix("torch.")
    assert found.product == pytest.approx(1e9)
    assert found.convolution == pytest.approx(1e9)
    # The time of attention is proportional to the heads' width, so that none is left for the weights themselves, which
    # have at least a tenth.
    assert found.attention == pytest.approx(1e9)
    assert found.weights == pytest.approx(2 * 1e9 / (0.1 * 7 * 2 * calibrate.HEAD_WIDTHS[0]))
    assert (found.memory, found.cache) == (3 * 4 * 2**24, 3 * 4 * 2**20)
    assert (found.random, found.gelu) == (2**20, 2**20)
    assert (found.update, found.update_call) == (40 * 2**22, pytest.approx(1 / 300))
    # Eight products forward, eight for the weights and seven for the inputs, in 60 to 140 calls in all.
    assert 23 * 2048 / 140 < found.call * 1e9 < 23 * 2048 / 60


def test_the_shown_rates_are_measured_ones() -> None:
    shown = described(ONES)
    assert [name for name, _, _ in shown] == [f.name for f in dataclasses.fields(ONES) if f.name != "dtype"]
    assert all(source.startswith("measured here: ") for _, _, source in shown)


@pytest.mark.parametrize("path", PREDICTIONS, ids=lambda path: path.stem)
def test_every_part_is_within_a_factor_of_the_measured_one(path: Path) -> None:
    """Of those that take 3 % of the step or more. No rate was chosen by a step."""
    report = json.loads(path.read_text())
    whole = sum(row["measured"] for row in report["parts"])
    ratios = {
        row["part"]: row["milliseconds"]["cpu"] / row["measured"]
        for row in report["parts"]
        if row["measured"] > 0.03 * whole
    }
    assert len(ratios) >= 5
    assert all(1 / 1.5 < ratio < 1.5 for ratio in ratios.values()), ratios
    assert set(read_parts(path, report["options"]["stage"], report["options"]["batch"])) == set(PARTS)


def test_predictions_of_several_steps_are_committed() -> None:
    options = [json.loads(path.read_text())["options"] for path in PREDICTIONS]
    assert len({(own["preset"], own["stage"], own["dtype"]) for own in options}) >= 4
