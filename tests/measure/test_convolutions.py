"""`prior-fast bench convolutions`: the convolutions of a step, and the command end to end at small widths."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prior_fast.cli.main import main
from prior_fast.config import RunConfig
from prior_fast.measure.convolutions import bench_convolutions as convolutions
from prior_fast.measure.convolutions import report as convolutions_report
from prior_fast.measure.convolutions.bench_convolutions import (
    ConvolutionOptions,
    Trial,
    compared_images,
    run_convolutions,
)
from prior_fast.measure.convolutions.found import DATA, DIRECTIONS, FORWARD, WEIGHT, Convolution, Found, collect
from prior_fast.measure.kernels.schedule import PASSES, ROOM, Limit
from prior_fast.measure.ladder.bench_ladder import LadderOptions, make_config
from prior_fast.model.prior import PRIORModel
from prior_fast.training.step import train_only

CPU = torch.device("cpu")
SMALL = [
    *("model.image.width=4", "model.image.pool_heads=2", "model.embed_dim=32", "model.sentence_decoder.heads=2"),
    "model.decoder_blocks=5",
]
WORDS = ["bench", "convolutions", "--preset", "tiny", "--batch", "3", "--device", "cpu", "--seconds", "0.001", *SMALL]


@pytest.fixture(autouse=True)
def short_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prior_fast.measure.roofline.LEAST_SECONDS", 0.01)


def config_of(preset: str, batch: int, *settings: str) -> RunConfig:
    return make_config(LadderOptions(preset, batch=batch, settings=settings))


def counted(config: RunConfig, stage: int) -> int:
    """Operations of the convolutions, forward and backward, as PyTorch counts them."""
    with torch.device("meta"):
        model = PRIORModel(config.model, 100).train()
        images = torch.empty(config.batch_size, 1, 224, 224)
    train_only(model, stage)
    with FlopCounterMode(display=False) as counter:
        embedding = model.encode_images(images)
        loss = embedding.whole.sum() + embedding.patches.sum()
        if stage == 3:
            loss = loss + model.reconstruct_images(embedding.patches, embedding.patches).sum()
        loss.backward()
    found = counter.get_flop_counts()["Global"]
    return sum(count for op, count in found.items() if "convolution" in str(op))


def operations(found: Found) -> int:
    return sum(len(modules) * len(conv.directions) * conv.operations for conv, modules in found.items())


def part(found: Found, name: str) -> Found:
    chosen = {conv: [module for module in modules if module.startswith(name)] for conv, modules in found.items()}
    return {conv: modules for conv, modules in chosen.items() if modules}


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize(("preset", "batch"), [("tiny", 5), ("paper", 128)])
def test_operations_are_those_that_torch_counts(preset: str, batch: int, stage: int) -> None:
    config = config_of(preset, batch)
    assert operations(collect(config, stage, compiled=False)) == counted(config, stage) > 0


def test_the_convolutions_of_the_paper() -> None:
    config = config_of("paper", 128)
    with torch.device("meta"):
        layers = {name: m for name, m in PRIORModel(config.model, 100).named_modules() if isinstance(m, nn.Conv2d)}
    found = collect(config, 3, compiled=False)
    assert sorted(name for modules in found.values() for name in modules) == sorted(layers)
    encoder, decoder = part(found, "image_encoder."), part(found, "image_decoder.")
    assert [sum(map(len, some.values())) for some in (encoder, decoder)] == [53, 11]
    for conv, modules in found.items():
        assert conv.input[0] == conv.output[0] == 128
        for name in modules:
            layer = layers[name]
            assert (conv.input[1], conv.output[1]) == (layer.in_channels, layer.out_channels)
            assert conv.has_bias == (layer.bias is not None)
            if not conv.transposed:
                assert conv.weight == tuple(layer.weight.shape) and conv.stride == layer.stride
    # Each of the five upsamplings and its convolution are one transposed convolution.
    assert sorted(conv.weight for conv in found if conv.transposed) == [
        (96, 48, 4, 4), (192, 96, 4, 4), (384, 192, 4, 4), (768, 384, 4, 4), (1536, 768, 4, 4),
    ]  # fmt: skip
    # Images need no gradient.
    assert [modules for conv, modules in found.items() if not conv.data_gradient] == [["image_encoder.encoder.conv1"]]
    assert part(collect(config, 1, compiled=False), "image_decoder.") == {}


def test_a_compiled_step_on_a_gpu_has_other_forms_of_few_channels() -> None:
    found = collect(config_of("paper", 4), 3, compiled=True)
    by_module = {module: conv for conv, modules in found.items() for module in modules}
    # The last one is a matrix product; nothing else is missing.
    plain = collect(config_of("paper", 4), 3, compiled=False)
    missing = {module for modules in plain.values() for module in modules} - set(by_module)
    assert missing == {"image_decoder.output_head.0"}
    stem = by_module["image_encoder.encoder.conv1"]
    assert stem.input == (4, 8, 115, 115) and stem.weight == (64, 8, 4, 4) and stem.stride == (1, 1)
    assert stem.output == (4, 64, 112, 112) and not stem.data_gradient
    last = by_module["image_decoder.blocks.4.conv2.0"]
    assert (last.input[1], last.weight, last.output[1]) == (64, (64, 64, 3, 3), 64)
    changed = {module for conv, modules in found.items() if conv not in plain for module in modules}
    assert changed == {"image_encoder.encoder.conv1", "image_decoder.blocks.4.conv2.0"}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_gradients_are_those_of_autograd(transposed: bool, has_bias: bool) -> None:
    weight = (6, 5, 4, 4) if transposed else (5, 6, 3, 3)
    conv = Convolution((3, 6, 9, 7), weight, has_bias, (2, 2), (1, 1), (1, 1), transposed, (0, 0), 1, True)
    x, weights = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (conv.input, conv.weight))
    bias = torch.randn(5, dtype=torch.float64) if has_bias else None
    if transposed:
        output = nn.functional.conv_transpose2d(x, weights, bias, stride=2, padding=1)
    else:
        output = nn.functional.conv2d(x, weights, bias, stride=2, padding=1)
    assert tuple(output.shape) == conv.output
    dout = torch.randn_like(output)
    expected = dict(zip((FORWARD, DATA, WEIGHT), (output, *torch.autograd.grad(output, (x, weights), dout))))
    for name in (FORWARD, DATA, WEIGHT):
        result = DIRECTIONS[name](conv, x.detach(), weights.detach(), dout, bias)
        torch.testing.assert_close(result, expected[name].detach())
    numbers = x.numel() + weights.numel() + output.numel()
    assert conv.least_bytes(DATA, 2) == conv.least_bytes(WEIGHT, 2) == 2 * numbers
    assert conv.least_bytes(FORWARD, 2) == 2 * (numbers + (5 if has_bias else 0))


def test_checks_take_images_from_first_to_last(rng: np.random.Generator) -> None:
    batch = int(rng.integers(5, 50))
    conv = Convolution((batch, 2, 8, 8), (3, 2, 3, 3), False, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, True)
    one = conv.operations / batch
    assert compared_images(conv, 2 * conv.operations) == list(range(batch))
    assert compared_images(conv, 0) == [0, batch - 1]
    some = compared_images(conv, 4.5 * one)
    assert len(set(some)) == 4 and some[0] == 0 and some[-1] == batch - 1


@pytest.mark.parametrize("checked", [0.0, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_right_ones_pass_and_a_planted_error_is_caught(
    dtype: torch.dtype, checked: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With some images and with all images compared."""
    monkeypatch.setitem(convolutions.CHECKED, "cpu", checked)
    conv = Convolution((9, 4, 12, 12), (8, 4, 3, 3), True, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, True)

    def last_image_left_out(conv: Convolution, x: Tensor, weight: Tensor, dout: Tensor, *bias: Tensor) -> Tensor:
        return DIRECTIONS[WEIGHT](conv, x[:-1], weight, dout[:-1], *bias)

    def last_is_nan(conv: Convolution, *inputs: Tensor) -> Tensor:
        result = DIRECTIONS[DATA](conv, *inputs)
        result[-1, -1, -1, -1] = float("nan")
        return result

    for wrong in ({}, {WEIGHT: last_image_left_out}, {DATA: last_is_nan}, {FORWARD: DIRECTIONS[DATA]}):
        trial = Trial(conv, ["layer"], CPU, dtype, {**DIRECTIONS, **wrong})
        trial.measure(0.001, Limit())
        assert [name for name in DIRECTIONS if name in trial.errors] == [n for n in DIRECTIONS if n not in wrong]
        assert len(trial.problems) == len(wrong) and all(conv.name in words for words in trial.problems)
        assert [row["direction"] for row in trial.rows()] == list(trial.errors)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[dict[str, Any]] = []
    write_json = convolutions_report.write_json

    def kept(path: Path, value: Any) -> None:
        write_json(path, value)
        written.append(json.loads(path.read_text()))

    monkeypatch.setattr(convolutions_report, "write_json", kept)
    assert main([*WORDS, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    found = collect(config_of("tiny", 3, *SMALL), 3, compiled=False)
    # The file is written after each convolution and is complete only at the end.
    assert [len({str(row["modules"]) for row in report["rows"]}) for report in written[:-1]] == [
        *range(1, len(found) + 1)
    ]
    assert [report["complete"] for report in written] == [False] * len(found) + [True]
    report = written[-1]
    rows, totals = report["rows"], {(row["part"], row["direction"]): row for row in report["totals"]}
    assert len(rows) == sum(len(conv.directions) for conv in found) and not report["problems"]
    sizes = [row["count"] * row["operations"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    for row in rows:
        low, high = row["spread"]
        assert 0 < low <= row["milliseconds"] <= high and len(row["passes"]) == PASSES
        assert row["share_of_limit"] == pytest.approx(row["limit_milliseconds"] / row["milliseconds"])
        assert row["teraflops"] == pytest.approx(row["operations"] / row["milliseconds"] / 1e9)
    whole = totals["all", "all"]
    assert whole["operations"] == operations(found)
    assert whole["milliseconds"] == pytest.approx(sum(row["count"] * row["milliseconds"] for row in rows))
    parts = [totals[name, "all"]["milliseconds"] for name in ("image_encoder", "image_decoder")]
    assert whole["milliseconds"] == pytest.approx(sum(parts))
    decoder = report["step"]["image_decoder"]
    assert decoder == {"convolutions": 11, "operations": totals["image_decoder", "all"]["operations"]}
    assert "image_decoder" in shown and "transposed 4x4 /2" in shown
    assert "## The least time on other chips" in (tmp_path / "convolutions.md").read_text()


def test_stage_1_has_no_decoder_and_a_precision_can_be_asked_for() -> None:
    report = run_convolutions(
        ConvolutionOptions(
            "tiny", 1, 2, device="cpu", seconds=0.001, settings=["precision=fp32", "cudnn_benchmark=false", *SMALL]
        )
    )
    assert report["options"]["dtype"] == "float32" and report["complete"]
    assert not report["options"]["config"]["cudnn_benchmark"]
    assert {row["part"] for row in report["totals"]} == {"image_encoder", "all"}


def test_a_wrong_one_is_told_after_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(conv: Convolution, *inputs: Tensor) -> Tensor:
        if conv.transposed and conv.input[-1] == 7:
            return torch.zeros(conv.output, dtype=inputs[0].dtype)
        if conv.input[1] == 1:
            raise RuntimeError("nothing serves\nhere")
        return DIRECTIONS[FORWARD](conv, *inputs)

    planted = partial(run_convolutions, functions={**DIRECTIONS, FORWARD: wrong})
    monkeypatch.setattr(convolutions, "run_convolutions", planted)
    assert main([*WORDS, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "forward: result 0 differs from the reference by 1 of its norm" in error and "1 more too" in error
    report = json.loads((tmp_path / "convolutions.json").read_text())
    assert len(report["problems"]) == 2 and report["problems"][1].endswith("RuntimeError: nothing serves")
    assert "**Not timed**" in (tmp_path / "convolutions.md").read_text()
    untimed = [row for row in report["rows"] if row["transposed"] and row["input"][-1] == 7]
    assert [row["direction"] for row in untimed] == [DATA, WEIGHT]


def test_too_little_memory_for_one_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = convolutions.copies

    def failing(case: Any, backward: bool) -> Any:
        if "transposed" in case.shape:
            raise torch.OutOfMemoryError("no room")
        return copies(case, backward)

    monkeypatch.setattr(convolutions, "copies", failing)
    report = run_convolutions(ConvolutionOptions("tiny", 3, 2, device="cpu", seconds=0.001, settings=SMALL))
    assert len(report["problems"]) == len(report["unfinished"]) == 5 and not report["complete"]
    assert report["rows"] and not any(row["transposed"] for row in report["rows"])


def test_a_limit_leaves_the_smaller_ones_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Short(Limit):
        """A limit that allows one convolution and three passes of another."""

        asked = 0

        @property
        def left(self) -> float:
            Short.asked += 1
            return 1.0 if Short.asked <= PASSES + 3 else -1.0

    options = ConvolutionOptions("tiny", 3, 2, device="cpu", seconds=0.001, out=tmp_path, settings=SMALL, limit=Short())
    report = run_convolutions(options)
    found = collect(config_of("tiny", 2, *SMALL), 3, compiled=False)
    assert [len(row["passes"]) for row in report["rows"]] == 3 * [PASSES] + 3 * [3]
    assert report["unfinished"][0] == report["rows"][-1]["name"]
    assert not report["complete"] and len(report["unfinished"]) == len(found) - 1
    # Nothing is measured within the time that is reserved for the tables.
    assert main([*WORDS, "--limit", str(ROOM / 2), "--out", str(tmp_path)]) == 0
    assert "not complete, left out or not timed in all passes:" in capsys.readouterr().out
    report = json.loads((tmp_path / "convolutions.json").read_text())
    assert report["rows"] == report["totals"] == [] and len(report["unfinished"]) == len(found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "papr"], "papr"),
        (["--batch", "1"], "--batch 1: must be at least 2"),
        (["--stage", "4"], "--stage"),
        (["--seconds", "0"], "--seconds 0.0: must be more than 0"),
        (["--limit", "-1"], "--limit -1.0: must be more than 0"),
        (["--width-divisor", "7"], "--width-divisor 7: does not divide"),
        (["batch_size=4"], "batch_size: use --batch"),
        (["cudnn_benchmrk=false"], "cudnn_benchmrk"),
    ],
)
def test_wrong_use(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "convolutions", "--preset", "tiny", "--device", "cpu", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
