"""Choices by measurement, with a measure that needs no clock; and those of the decoder's convolutions."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prior_fast.config import apply_overrides, preset
from prior_fast.errors import RunError, UsageError
from prior_fast.model.prior import PRIORModel
from prior_fast.model.upsampled_conv import UpsampledConv2d
from prior_fast.ops.upsampled_conv import upsampled_conv
from prior_fast.training import step
from prior_fast.training.choices import Choices, cache_folder
from prior_fast.training.chosen_convs import check_convolutions, choose_convolutions
from prior_fast.training.distributed import Ranks
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer
from tests.training.four_pairs import four_pairs
from tests.training.test_no_syncs import make_batch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some/folder/choices.json"


def timed(call: Callable[[], object]) -> float:
    """The candidates of these tests return their times."""
    return float(call())  # type: ignore[arg-type]


def never(call: Callable[[], object]) -> float:
    raise AssertionError("nothing is to be measured")


def fails(message: str) -> Callable[[], object]:
    def call() -> object:
        raise ValueError(message)

    return call


def test_the_fastest_is_taken_and_remembered(path: Path) -> None:
    candidates = {"a": lambda: 3.0, "b": lambda: 2.0, "c": lambda: 2.0}
    assert Choices(path).choose("sum 4x4", candidates, timed) == "b"
    assert json.loads(path.read_text()) == {"sum 4x4": {"choice": "b", "times": {"a": 3.0, "b": 2.0, "c": 2.0}}}
    assert Choices(path).choose("sum 4x4", candidates, never) == "b"
    # Another size is another choice, and so is one that is no longer a candidate.
    assert Choices(path).choose("sum 8x8", {"a": lambda: 1.0, "b": lambda: 2.0}, timed) == "a"
    assert Choices(path).choose("sum 4x4", {"a": lambda: 1.0, "d": lambda: 2.0}, timed) == "a"
    assert [Choices(path).made[key]["choice"] for key in ("sum 4x4", "sum 8x8")] == ["a", "a"]


def test_a_candidate_that_fails_is_left_out_and_tried_again(path: Path) -> None:
    choices = Choices(path)
    with pytest.warns(RuntimeWarning, match="sum: b is left out: ValueError: no memory"):
        assert choices.choose("sum", {"a": lambda: 3.0, "b": fails("no memory")}, timed) == "a"
    assert not path.exists()
    assert choices.choose("sum", {"a": fails("not again"), "b": lambda: 1.0}, never) == "a"
    assert Choices(path).choose("sum", {"a": lambda: 3.0, "b": lambda: 1.0}, timed) == "b"


def test_if_all_fail_the_reasons_are_told(path: Path) -> None:
    with pytest.raises(RunError, match="sum: no candidate works: a: ValueError: one; b: ValueError: two"):
        Choices(path).choose("sum", {"a": fails("some lines\none"), "b": fails("two")}, timed)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"sum": 3}', '{"sum": {"choice": "b"}', "\x00"])
def test_a_damaged_file_is_made_again(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.warns(RuntimeWarning, match=r"choices\.json can't be read and is made again"):
        assert Choices(path).choose("sum", {"a": lambda: 1.0, "b": lambda: 2.0}, timed) == "a"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Choices(path).choose("sum", {"a": lambda: 1.0, "b": lambda: 2.0}, never) == "a"


def test_an_entry_without_a_choice_is_measured(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"sum": {}, "product": {"choice": []}}')
    for key in ("sum", "product"):
        assert Choices(path).choose(key, {"a": lambda: 1.0, "b": lambda: 2.0}, timed) == "a"


def test_a_choice_that_another_process_wrote_is_kept(path: Path) -> None:
    first, second = Choices(path), Choices(path)
    first.choose("sum", {"a": lambda: 1.0, "b": lambda: 2.0}, timed)
    second.choose("product", {"a": lambda: 1.0, "b": lambda: 2.0}, timed)
    assert set(Choices(path).made) == {"sum", "product"}


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning):
        choices = Choices(tmp_path / "file/choices.json")
        assert choices.choose("sum", {"a": lambda: 1.0, "b": lambda: 2.0}, timed) == "a"
    assert choices.choose("sum", {"a": lambda: 1.0, "b": lambda: 2.0}, never) == "a"


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "prior-fast"
    for text in ("relative/folder", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", text)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache/prior-fast"


def test_a_file_for_each_device_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200 / MIG 1g.18gb")
    first = Choices.of(CUDA).path
    assert first.parent == tmp_path / "prior-fast/choices" and first.name.startswith("NVIDIA-H200-MIG-1g.18gb_torch-")
    monkeypatch.setattr(torch, "__version__", "9.9.9+cu999")
    assert "torch-9.9.9+cu999_" in Choices.of(CUDA).path.name


def model_of(settings: list[str], small_settings: list[str]) -> tuple[PRIORModel, object]:
    config = apply_overrides(preset("tiny"), [*small_settings, *settings])
    torch.manual_seed(0)
    return PRIORModel(config.model, vocab_size=50).train(), config


def plain(*tensors: torch.Tensor, backend: str, **options: bool) -> object:
    return upsampled_conv(*tensors, backend="reference", **options)


@pytest.mark.parametrize("joined", [False, True])
def test_the_kernels_are_timed_with_the_moments_that_a_step_takes_from_them(
    joined: bool, path: Path, small_settings: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, bool]] = []

    def watched(*tensors: torch.Tensor, backend: str, **options: bool) -> object:
        seen.append(options)
        return plain(*tensors, backend=backend, **options)

    monkeypatch.setattr("prior_fast.model.upsampled_conv.upsampled_conv", watched)
    model, config = model_of(["upsampled_conv=auto"], small_settings)
    if joined:
        for norm in model.modules():
            if type(norm) is torch.nn.BatchNorm2d:
                norm.__class__ = torch.nn.SyncBatchNorm
    before = {name: x.clone() for name, x in model.state_dict().items()}

    def measure(call: Callable[[], object]) -> float:
        call()
        return 1.0

    choices = Choices(path)
    choose_convolutions(model, config, four_pairs(rng), CPU, choices=choices, measure=measure)  # type: ignore[arg-type]
    assert seen == [{} if joined else {"relu": False, "moments": True}] * 3
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    # What is measured is part of the key: a choice without the moments is another one.
    assert path.read_text().count("with moments") == (0 if joined else 3)


def backends(model: PRIORModel) -> list[str]:
    return [layer.backend for layer in model.modules() if isinstance(layer, UpsampledConv2d)]


@pytest.mark.parametrize(("word", "found"), [("cudnn", "cudnn"), ("triton", "triton"), ("auto", "cudnn")])
def test_the_setting_sets_each_layer(
    word: str, found: str, small_settings: list[str], rng: np.random.Generator
) -> None:
    model, config = model_of([f"upsampled_conv={word}"], small_settings)
    assert backends(model) == ["cudnn"] * 3
    chosen = choose_convolutions(model, config, four_pairs(rng), CPU, measure=never)  # type: ignore[arg-type]
    assert backends(model) == [found] * 3 == list(chosen.values())


def test_auto_measures_forward_and_backward_of_each_layer(
    path: Path, small_settings: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The interpreter would take a minute.
    monkeypatch.setattr("prior_fast.model.upsampled_conv.upsampled_conv", plain)
    model, config = model_of(["upsampled_conv=auto"], small_settings)
    layers = [layer for layer in model.modules() if isinstance(layer, UpsampledConv2d)]
    calls: list[tuple[int, str, torch.Size]] = []

    def measure(call: Callable[[], object]) -> float:
        dx, dweight = call()  # type: ignore[misc]
        (number,) = (n for n, layer in enumerate(layers) if layer.weight.shape == dweight.shape)
        calls.append((number, layers[number].backend, dx.shape))
        # The kernels win in the layer in the middle.
        return 1.0 + (layers[number].backend == "triton") * (-0.5 if number == 1 else 0.5)

    before = torch.get_rng_state()
    batch = four_pairs(rng)
    choose_convolutions(model, config, batch, CPU, choices=Choices(path), measure=measure)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)
    assert backends(model) == ["cudnn", "triton", "cudnn"]
    widths = [layer.in_channels for layer in layers]
    assert calls == [
        (n, backend, torch.Size([4, widths[n], 7 * 2**n, 7 * 2**n]))
        for n in range(3)
        for backend in ("cudnn", "triton")
    ]
    assert all(parameter.grad is None for parameter in model.parameters())
    # The next run knows.
    other, _ = model_of(["upsampled_conv=auto"], small_settings)
    choose_convolutions(other, config, batch, CPU, choices=Choices(path), measure=never)  # type: ignore[arg-type]
    assert backends(other) == ["cudnn", "triton", "cudnn"]


@pytest.mark.parametrize(
    ("word", "device", "compiled", "reason"),
    [
        ("triton", CPU, True, "device=cpu"),
        ("triton", CUDA, False, "compile=auto"),
        ("triton", CUDA, True, None),
        ("auto", CPU, False, None),
        ("cudnn", CPU, False, None),
    ],
)
def test_where_the_kernels_cannot_be_used(word: str, device: torch.device, compiled: bool, reason: str | None) -> None:
    config = apply_overrides(preset("paper"), [f"upsampled_conv={word}"])
    if reason is None:
        check_convolutions(config, device, compiled)
        return
    with pytest.raises(
        UsageError, match=f"upsampled_conv=triton does not go with {reason}: .* use upsampled_conv=cudnn"
    ):
        check_convolutions(config, device, compiled)


@pytest.mark.parametrize(("stage", "times"), [(1, 0), (3, 1)])
def test_a_trainer_chooses_once_and_before_it_records(
    stage: int, times: int, small_settings: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = apply_overrides(preset("tiny"), [*small_settings, "compile=on", "precision=fp32"])
    model = PRIORModel(config.model, vocab_size=50)
    trainer = StageTrainer(model, stage, config, Ranks(0, 1, None, torch.device("cpu")))
    seen: list[str] = []
    monkeypatch.setattr(step, "choose_convolutions", lambda own, *_: seen.append("chosen") if own is model else None)
    monkeypatch.setattr(
        step, "Parts", lambda *_, **__: seen.append("recorded") or SimpleNamespace(copies=None, prepare=lambda x: x)
    )
    trainer.records = True
    trainer.loss = lambda *_: {}  # type: ignore[assignment]
    batch = make_batch(rng)
    with torch.no_grad():
        trainer.evaluate(batch, StepContext(0.5, 0))
    assert seen == []  # validation uses what training chose
    for _ in range(2):
        trainer.evaluate(batch, StepContext(0.5, 0))
    assert seen == [*["chosen"] * times, "recorded"]


def test_a_trainer_refuses_the_kernels_on_a_cpu(small_settings: list[str]) -> None:
    config = apply_overrides(preset("tiny"), [*small_settings, "upsampled_conv=triton"])
    model = PRIORModel(config.model, vocab_size=50)
    with pytest.raises(UsageError, match="upsampled_conv=triton does not go with device=cpu"):
        StageTrainer(model, 3, config, Ranks(0, 1, None, torch.device("cpu")))
