"""The meter's figures: from known sizes, with a clock set by hand, and in the files of a run."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.cli.main import main
from prior_fast.config import preset
from prior_fast.training import meter as module
from prior_fast.training.distributed import Ranks
from prior_fast.training.meter import MEASURED, WARM_UP, Meter, peak_memory, peak_rate, sum_of_squares
from prior_fast.training.operations import sizes_of, step_operations

CPU = Ranks(0, 1, None, torch.device("cpu"))
MODEL = preset("tiny").model


def make_batch(rng: np.random.Generator, sentences: tuple[int, ...]) -> PackedBatch:
    reports = [[rng.integers(5, 50, rng.integers(1, 9)) for _ in range(n)] for n in sentences]
    numbers = torch.arange(len(sentences))
    images = torch.zeros(len(sentences), 1, 1, 1)
    return pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)


class Clock:
    """time.perf_counter, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def slow(self, batches: list[PackedBatch], seconds: float) -> Iterator[PackedBatch]:
        for batch in batches:
            self.now += seconds
            yield batch


def test_figures_follow_from_the_batches_and_the_clock(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, meter = Clock(monkeypatch), Meter(MODEL, 64, CPU, half=False)
    batches = [make_batch(rng, (3, 1, 4)), make_batch(rng, (2, 2, 5))]
    meter.start_stage(2)
    for _ in meter.watch(clock.slow(batches, 0.5)):
        clock.now += 1.5
    figures, sizes = meter.close(), sizes_of(batches)
    assert figures["pairs_per_second"] == pytest.approx(6 / 4)
    assert figures["tokens_per_second"] == pytest.approx(sizes.tokens / 4)
    assert figures["padding_removed"] == pytest.approx(1 - sizes.tokens / (6 * 64))
    assert figures["data_wait"] == pytest.approx(1 / 4)
    assert figures["tflops_per_second"] == pytest.approx(step_operations(MODEL, 2, sizes) / 4 / 1e12)
    assert figures["peak_memory_gib"] == pytest.approx(peak_memory(CPU.device), rel=0.2) and "mfu" not in figures
    assert set(figures) - {"padding_removed"} <= set(MEASURED)


def test_what_happens_between_spans_is_in_none(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, meter = Clock(monkeypatch), Meter(MODEL, 64, CPU, half=False)
    meter.start_stage(1)
    for _ in meter.watch(iter([make_batch(rng, (2, 2)) for _ in range(3)])):
        clock.now += 1.0
        assert meter.close()["pairs_per_second"] == pytest.approx(2.0)
        clock.now += 50.0  # a checkpoint


def test_mfu_is_the_share_of_all_chips_rates(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(module, "device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    meter = Meter(MODEL, 64, CPU, half=True)
    batch = make_batch(rng, (3, 1, 4))
    meter.start_stage(3)
    for _ in meter.watch(iter([batch])):
        clock.now += 2.0
    assert meter.close()["mfu"] == pytest.approx(step_operations(MODEL, 3, sizes_of([batch])) / 2 / 312e12)
    assert meter.summary()["run"]["peak_tflops_per_second"] == 312  # type: ignore[index]


def test_averages_leave_out_the_first_steps_of_each_stage(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, meter = Clock(monkeypatch), Meter(MODEL, 64, CPU, half=False)
    for stage, steps in ((1, WARM_UP + 4), (2, 3)):
        meter.start_stage(stage)
        for step, _ in enumerate(meter.watch(iter([make_batch(rng, (2, 2)) for _ in range(steps)]))):
            clock.now += 10.0 if step < WARM_UP else 1.0
            meter.close()
    summary = meter.summary()
    stages = summary["stages"]
    assert list(stages) == ["1", "2"]  # type: ignore[call-overload]
    assert (stages["1"]["steps"], stages["1"]["pairs_per_second"]) == (4, 2.0)  # type: ignore[index]
    assert (stages["2"]["steps"], stages["2"]["pairs_per_second"]) == (3, 0.2)  # type: ignore[index]
    assert [stages[stage]["warm_up_included"] for stage in ("1", "2")] == [False, True]  # type: ignore[index]
    assert summary["run"]["steps"] == 7  # type: ignore[index]


def test_squares_are_summed_over_the_segments_of_each_batch() -> None:
    assert sum_of_squares([torch.tensor([0, 2, 5]), torch.tensor([0, 1, 2])]).item() == 4 + 9 + 1 + 1


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 790e12),
        ("NVIDIA H200", 790e12),
        # Other clocks, other chips.
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("", None),
    ],
)
def test_peak_rates_of_known_chips(name: str, rate: float | None) -> None:
    assert peak_rate(name, half=True) == rate
    assert peak_rate(name, half=False) == (None if rate is None else rate / 2)


def test_a_run_writes_its_figures_and_a_profile_changes_nothing_else(
    small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = {}
    for name, extra in (("plain", []), ("profiled", ["profile=true"])):
        words = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(tmp_path / name)]
        assert main([*words, *small_settings, *extra]) == 0
        lines[name] = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
    train = [line for line in lines["plain"] if line["kind"] == "train"]
    for line in train:
        assert set(MEASURED) - {"mfu"} <= set(line)
        assert 0 < line["padding_removed"] < 1 and 0 <= line["data_wait"] < 1 and line["tflops_per_second"] > 0
    speed = json.loads((tmp_path / "plain" / "metrics.json").read_text())["speed"]
    assert list(speed["stages"]) == ["1", "2", "3"] and speed["run"]["steps"] == len(train) == 6
    assert all(speed["run"][name] > 0 for name in ("pairs_per_second", "tokens_per_second", "peak_memory_gib"))
    for line in (*lines["plain"], *lines["profiled"]):
        for name in MEASURED:
            line.pop(name, None)
    assert lines["plain"] == lines["profiled"]
    assert not (tmp_path / "plain" / "profile").exists()
    check_profile(tmp_path / "profiled" / "profile", capsys.readouterr().out)


def check_profile(folder: Path, said: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        f"stage-{n}.{kind}" for n in "123" for kind in ("json", "txt")
    ]
    for stage in "123":
        trace = json.loads((folder / f"stage-{stage}.json").read_text())
        assert any("conv" in event.get("name", "") for event in trace["traceEvents"])
        rows = (folder / f"stage-{stage}.txt").read_text().splitlines()[1:]
        assert len(rows) == 40
        times = [float(row.split()[1]) for row in rows]
        assert times == sorted(times, reverse=True)
        assert f"stage {stage}: the largest costs of 1 step(s)" in said
