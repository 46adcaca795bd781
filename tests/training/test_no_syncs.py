"""Neither a step nor the loader reads a value back to the host: a GPU would be idle until the host continues."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.cli.main import main
from prior_fast.config import RunConfig, apply_overrides, preset
from prior_fast.data.batch_plan import EpochPlan, LoaderConfig
from prior_fast.data.loader import TrainingLoader
from prior_fast.data.on_device import on_device
from prior_fast.data.packing import to_device
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.distributed import Ranks
from prior_fast.training.log import LossWindow
from prior_fast.training.meter import Meter
from prior_fast.training.run import Run, seed_everything, step_seed
from prior_fast.training.schedule import Schedule
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer

# Ops whose result, or the size of whose result, the host waits for.
READS = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "argwhere", "masked_select"),
    *("unique", "unique_consecutive", "unique_dim", "unique_dim_consecutive", "_unique", "_unique2", "bincount"),
    *("_linalg_check_errors", "multinomial"),
    # A tensor made of Python's numbers is copied to the GPU, and the host waits for the copy.
    "lift_fresh",
}
# Methods that leave no trace below Python where the tensor is on a CPU already.
METHODS = {"tolist", "numpy", "cpu", "item", "__bool__", "__int__", "__float__", "__index__", "__array__"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
COPIES = {"_to_copy", "copy_", "copy", "_copy_from"}


class HostSync(AssertionError):
    """An op of a step would make the host wait for a GPU."""


class NoSyncs(TorchDispatchMode):
    """Raises HostSync where an op under it reads; ops of `prior_fast::` are opaque, since GPUs run other code there.

    paused: whether the current operations only look like reads here: a fill with a number, or numbers on the host.
    """

    paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten" and not self.paused and reads(func, args, kwargs):
            raise HostSync(f"{func} {place()}")
        return func(*args, **kwargs)


@contextmanager
def pause(syncs: NoSyncs) -> Iterator[None]:
    syncs.paused = True
    try:
        yield
    finally:
        syncs.paused = False


class NoReadingMethods(TorchFunctionMode):
    """The same for methods of tensors, except in the backward pass; syncs: the mode that watches a method's ops."""

    def __init__(self, syncs: NoSyncs) -> None:
        super().__init__()
        self.syncs = syncs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in METHODS and (resolve_name(func) or "").startswith("torch.Tensor."):
            raise HostSync(f"Tensor.{name} {place()}")
        if func is not Tensor.__setitem__ or not isinstance(args[2], (int, float)):
            return func(*args, **(kwargs or {}))
        if copies_number(args[1]):
            raise HostSync(f"Tensor.{name} of a number {place()}")
        with pause(self.syncs):
            return func(*args, **(kwargs or {}))


def copies_number(index: Any) -> bool:
    """Whether x[index] = number copies the number from the host; masks and slices are filled on the device."""
    parts = index if isinstance(index, tuple) else (index,)
    rows = any(isinstance(i, Tensor) and i.dtype not in (torch.bool, torch.uint8) for i in parts)
    return rows or isinstance(index, int)


def reads(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name = func.overloadpacket.__name__
    if name in INDEXED:
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if name == "repeat_interleave":
        return "Tensor" in func._overloadname and kwargs.get("output_size") is None
    if name in COPIES:
        devices = {x.device.type for x in args if isinstance(x, Tensor)}
        return len(devices | {torch.device(kwargs["device"]).type} if kwargs.get("device") else devices) > 1
    return name in READS


def place() -> str:
    """The innermost line of this project's code, without the modes."""
    frames = [f for f in traceback.extract_stack() if "prior_fast" in Path(f.filename).parts or f.filename == __file__]
    frames = [f for f in frames if f.name not in ("__torch_dispatch__", "__torch_function__", "place")]
    return f"in {frames[-1].filename}:{frames[-1].lineno}, {frames[-1].line}" if frames else "in the backward pass"


@contextmanager
def no_syncs() -> Iterator[NoSyncs]:
    syncs = NoSyncs()
    with NoReadingMethods(syncs), syncs:
        yield syncs


def make_batch(rng: np.random.Generator) -> PackedBatch:
    reports = [[rng.integers(5, 50, rng.integers(1, 9)) for _ in range(n)] for n in (3, 1, 16, 5)]
    images = torch.tensor(rng.normal(size=(4, 1, 224, 224)), dtype=torch.float32)
    numbers = torch.arange(4)
    return pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)


def make_stepper(config: RunConfig, stage: int, device: torch.device, batch: PackedBatch) -> Callable[[int], None]:
    """Takes a step of a stage as the training loop does, including the log's and the meter's records."""
    torch.manual_seed(0)
    ranks = Ranks(0, 1, None, device)
    model = PRIORModel(config.model, vocab_size=50).to(device).train()
    trainer, window = StageTrainer(model, stage, config, ranks), LossWindow()
    meter, schedule = Meter(config.model, config.data.max_tokens, ranks, False), Schedule(config, 100)
    meter.start_stage(stage)

    def take(step: int) -> None:
        for watched in meter.watch(iter([batch])):
            seed_everything(0, step, ranks)
            context = StepContext(schedule.tau(stage, step), step_seed(0, step))
            window.add(trainer.step(watched.to(device), context, schedule.learning_rate(stage, step)))

    return take


@pytest.fixture
def config(small_settings: list[str], monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("PRIOR_FAST_CHECK", "0")  # as on a GPU, where values are not checked
    config = apply_overrides(preset("tiny"), small_settings)
    return apply_overrides(config, ["model.text.dropout=0.1", "model.sentence_decoder.dropout=0.1", "clip_norm=1"])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_step_reads_nothing(stage: int, config: RunConfig, rng: np.random.Generator) -> None:
    take = make_stepper(config, stage, torch.device("cpu"), make_batch(rng))
    take(0)  # the optimizer's state is made in the first step
    with no_syncs():
        take(1)


def test_the_steps_of_a_run_read_nothing(
    small_store: Path, small_settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIOR_FAST_CHECK", "0")
    plain, taken = Run._step, []

    def watched(self: Run, *args: Any) -> Any:
        taken.append(self.position.stage)
        with no_syncs():
            return plain(self, *args)

    monkeypatch.setattr(Run, "_step", watched)
    words = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(tmp_path / "run")]
    # This watches the CPU's operations; on a GPU the copies of batches are pinned, which the test below checks.
    assert main([*words, *small_settings, "log_every=2", "device=cpu"]) == 0
    assert taken == [1, 1, 2, 2, 3, 3]


PLANTED = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.detach().cpu().numpy(),
    "branch": lambda x: 1 if x.sum() > 0 else 2,
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "assigned mask": lambda x: x.clone().__setitem__(x > 0, x[:2]),
    "assigned number at rows": lambda x: x.clone().__setitem__(torch.arange(2, device=x.device), 0.0),
    "assigned number at a row": lambda x: x.clone().__setitem__(0, 0.0),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: torch.unique(x),
    "repeat": lambda x: torch.repeat_interleave(x, torch.ones_like(x, dtype=torch.int64)),
    "equal": lambda x: torch.equal(x, x + 1),
    "made of numbers": lambda x: x * torch.tensor([1.0, 2.0, 3.0], device=x.device),
    "clipping with an error": lambda x: torch.nn.utils.clip_grad_norm_([x], 1.0, error_if_nonfinite=True),
    "another device": lambda x: x.to("meta"),
}
# Torch 2.15 fills these on the device. The project still avoids them: torch 2.11 to 2.14 are permitted.
WAITS_UP_TO_2_14 = ("assigned number at rows", "assigned number at a row")
UNSUSPICIOUS = {
    "repeat": lambda x: torch.repeat_interleave(x, torch.ones_like(x, dtype=torch.int64), output_size=3),
    "repeat all": lambda x: torch.repeat_interleave(x, 2),
    "rows": lambda x: x[torch.arange(2, device=x.device)],
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "assigned number": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "assigned number at a slice": lambda x: x.clone().__setitem__(slice(0, 2), 0.0),
    "filled rows": lambda x: x.index_fill(0, torch.arange(2, device=x.device), 0.0),
    "filled": lambda x: x.masked_fill(x > 0, 0.0),
    "cast": lambda x: x.double(),
}


def some_tensor(device: str = "cpu") -> Tensor:
    x = torch.tensor([1.0, -1.0, 2.0], device=device, requires_grad=True)
    x.grad = torch.ones_like(x)
    return x


@pytest.mark.parametrize("name", PLANTED)
def test_what_reads_is_seen_and_named_with_its_place(name: str) -> None:
    x = some_tensor()
    with pytest.raises(HostSync, match=Path(__file__).name), no_syncs():
        PLANTED[name](x)


@pytest.mark.parametrize("name", UNSUSPICIOUS)
def test_what_does_not_read_is_let_through(name: str) -> None:
    x = some_tensor()
    with no_syncs():
        UNSUSPICIOUS[name](x)


@contextmanager
def torch_watches() -> Iterator[None]:
    """A block in which torch raises if the host waits for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in PLANTED if name != "another device"])
def test_torch_too_sees_what_reads_on_a_gpu(name: str) -> None:
    x = some_tensor("cuda")
    fills = name in WAITS_UP_TO_2_14 and tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 15)
    with nullcontext() if fills else pytest.raises(RuntimeError, match="synchronizing"), torch_watches():
        PLANTED[name](x)


@pytest.mark.gpu
@pytest.mark.parametrize("name", UNSUSPICIOUS)
def test_torch_too_lets_what_does_not_read_through_on_a_gpu(name: str) -> None:
    x = some_tensor("cuda")
    with torch_watches():
        UNSUSPICIOUS[name](x)


class ReadsBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * gradient.sum().item()


def test_a_planted_read_in_a_step_is_seen(
    config: RunConfig, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = sys.modules["prior_fast.training.stages"]
    plain = stages.widen
    for planted in (lambda x: plain(x) * x.abs().max().item(), lambda x: ReadsBackwards.apply(plain(x))):
        monkeypatch.setattr(stages, "widen", planted)
        take = make_stepper(config, 1, torch.device("cpu"), make_batch(rng))
        with pytest.raises(HostSync, match=r"item|_local_scalar_dense"), no_syncs():
            take(0)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", ["off", pytest.param("on", marks=pytest.mark.compiles)])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_step_on_a_gpu_does_not_wait(stage: int, compiled: str, config: RunConfig, rng: np.random.Generator) -> None:
    device = torch.device("cuda", 0)
    config = apply_overrides(config, ["precision=bf16", f"compile={compiled}"])
    take = make_stepper(config, stage, device, make_batch(rng).to(device, non_blocking=False))
    with cudnn_for_training(config.cudnn_benchmark):
        take(0), take(1)  # kernels are compiled, state is made
        with torch_watches():
            take(2)


@pytest.mark.parametrize("bucket", [0, 32])
def test_packing_the_text_of_a_batch_reads_nothing(
    bucket: int, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of a batch are made by one op, which is opaque here; the test below checks it."""
    loader = make_loader(small_store, bucket, torch.device("cpu"))
    plan = EpochPlan(loader.dataset, loader.config, 0)[1]
    with no_syncs() as syncs:

        def copied(values: np.ndarray, device: torch.device) -> Tensor:
            with pause(syncs):  # page-locked on the way to a GPU
                return to_device(values, device)

        monkeypatch.setattr("prior_fast.data.packing.to_device", copied)
        packed = loader.text.pack(plan)
    assert packed.token_ids.numel() == packed.cu_tokens[-1] + packed.filler


@pytest.mark.gpu
@pytest.mark.parametrize("images", ["gpu", "host"])
@pytest.mark.parametrize("bucket", [0, 32])
def test_making_a_batch_on_a_gpu_does_not_wait(bucket: int, images: str, small_store: Path) -> None:
    device = torch.device("cuda", 0)
    batches = on_device(make_loader(small_store, bucket, device, images).epoch(0), device)
    stream = torch.cuda.current_stream()
    next(batches)
    with torch_watches():
        batch = next(batches)
        assert batch.token_ids.is_cuda and batch.images.is_cuda
    assert torch.cuda.current_stream() == stream


def make_loader(data: Path, bucket: int, device: torch.device, images: str = "auto") -> TrainingLoader:
    config = replace(preset("tiny").data, workers=0, token_bucket=bucket, images=images)
    return TrainingLoader(PreparedDataset.open(data, "train"), LoaderConfig(config, 4, seed=0), device)
