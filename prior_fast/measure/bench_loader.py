"""Measures pairs/s of each image source, alone and with a consumer that spends a training step's time on each batch."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from prior_fast.batch import PackedBatch
from prior_fast.config import DataConfig
from prior_fast.console import busy, print_table, stdout
from prior_fast.data.batch_plan import BatchPlan, EpochPlan, LoaderConfig
from prior_fast.data.loader import CPU, TrainingLoader
from prior_fast.data.packing import shared_tensor
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.ops.rotate_images import rotate_images

WARM_UP = 3  # batches that are not timed


@dataclass(frozen=True)
class LoaderOptions:
    """Options of `prior-fast bench loader`.

    Attributes:
        data: a prepared dataset.
        jpegs: the folder that the dataset was prepared from, to measure decoding too; None skips decoding.
        batch: pairs per batch.
        workers: threads or processes of the sources that use them.
        seconds: measuring time of a source alone, and again with the consumer.
        consumer: pairs/s that the consumer takes: 935 is PRIOR's stage 3 on an A100 (a target, not a measurement).
        device: the device that batches are moved to.
    """

    data: Path
    jpegs: Path | None
    batch: int = 128
    workers: int = 2
    seconds: float = 5.0
    consumer: float = 935.0
    device: torch.device = CPU


def measure(options: LoaderOptions, advance: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Measure each usable source; returns rows, reasons for the unusable sources, and the time of each part of a batch.

    Raises:
        UsageError: there is no prepared dataset, or it has fewer training studies than a batch.
    """
    dataset = PreparedDataset.open(options.data, "train")
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for name, open_loader in _loaders(dataset, options).items():
        advance(name)
        try:
            loader = open_loader()
        except UsageError as error:
            left_out[name] = str(error)
            continue
        with busy(f"measuring {name}"):
            rows.append({"source": name, **_rates(loader, options)})
    with busy("measuring the parts of a batch"):
        parts_ms = parts(dataset, options)
    return {"rows": rows, "left_out": left_out, "parts_ms": parts_ms, "studies": len(dataset)}


def _loaders(dataset: PreparedDataset, options: LoaderOptions) -> dict[str, Callable[[], TrainingLoader]]:
    def opened(**changes: Any) -> Callable[[], TrainingLoader]:
        data = dataclasses.replace(DataConfig(), **{"workers": options.workers, **changes})
        config = LoaderConfig(data, options.batch, seed=0)
        return lambda: TrainingLoader(dataset, config, options.device)

    def with_torchvision() -> TrainingLoader:
        loader = opened(source="workers")()
        loader.source = TorchvisionSource(dataset, loader.config)
        return loader

    loaders = {
        "memory, made when asked for": opened(source="memory", workers=0),
        "memory, made ahead": opened(source="memory"),
        "DALI": opened(source="dali"),
        "DataLoader workers": opened(source="workers"),
        "DataLoader workers, torchvision transforms": with_torchvision,
    }
    if options.jpegs:
        loaders["DALI from JPEG files"] = opened(source="dali", jpegs=str(options.jpegs))
    return loaders


def _rates(loader: TrainingLoader, options: LoaderOptions) -> dict[str, float]:
    """Pairs per second alone, and the share of time that a consumer waits."""
    batches = _endless(loader)
    for _ in islice(batches, WARM_UP):
        pass
    times, end = [], time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        next(batches)
        _wait(options.device)
        times.append(time.perf_counter() - began)
    step, waited, count = options.batch / options.consumer, 0.0, 0
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - began
        time.sleep(step)
        count += 1
    batches.close()  # type: ignore[attr-defined]
    return {
        "pairs_per_second": options.batch * len(times) / sum(times),
        "median_ms": 1e3 * median(times),
        "consumer_waits": waited / (waited + count * step),
        "batches": len(times),
        "replaced": loader.source.replaced,
    }


def _endless(loader: TrainingLoader) -> Iterator[Any]:
    """Batches of consecutive epochs as one endless stream, since small datasets have short epochs."""
    plans = (EpochPlan(loader.dataset, loader.config, epoch)[n] for epoch in range(10**9) for n in range(len(loader)))
    taken: list[BatchPlan] = []

    def remembered() -> Iterator[BatchPlan]:
        for plan in plans:
            taken.append(plan)
            yield plan

    for images in loader.source.stream(remembered()):
        yield loader._batch(taken.pop(0), images).to(loader.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parts(dataset: PreparedDataset, options: LoaderOptions) -> dict[str, float]:
    """Median milliseconds of each part of making a batch, in one thread."""
    config = LoaderConfig(DataConfig(workers=0), options.batch, seed=0)
    loader, plans = TrainingLoader(dataset, config), EpochPlan(dataset, config, 0)
    plan, images = plans[0], shared_tensor(dataset.images)
    rows, angles, flips = (torch.from_numpy(x) for x in (plan.image_rows, plan.angles, plan.flips))
    batch = next(loader.epoch(0))
    work: dict[str, Callable[[], Any]] = {
        "plan": lambda: plans[0],
        "pack": lambda: loader.text.pack(plan),
        "augment": lambda: rotate_images(images, rows, angles, flips, mean=0.5, std=0.25),
        "augment in plain PyTorch": lambda: rotate_images(
            images, rows, angles, flips, mean=0.5, std=0.25, backend="reference"
        ),
    }
    if options.device.type == "cuda":
        work["copy"] = lambda: _copy(batch, options.device)
    if options.jpegs:
        from prior_fast.data.sources.encoded import EncodedImages
        from prior_fast.radiology.xray import read_xray

        files = EncodedImages(dataset, options.jpegs)
        paths = [files.path(int(row)) for row in plan.image_rows[:16]]
        work["decode 16 files with Pillow"] = lambda: [read_xray(path) for path in paths]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: 1e3 * median(_time(run) for _ in range(5)) for name, run in work.items()}
    finally:
        torch.set_num_threads(threads)


def _copy(batch: PackedBatch, device: torch.device) -> None:
    batch.to(device)
    _wait(device)


def _time(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


class TorchvisionSource:
    """The common approach, for comparison: DataLoader workers transform one image at a time with torchvision."""

    description, replaced, compute = "torchvision", 0, CPU

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig) -> None:
        self.dataset, self.config = dataset, config

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[torch.Tensor]:
        from torch.utils.data import DataLoader

        workers = self.config.data.workers
        yield from DataLoader(
            _Transformed(self.dataset),  # type: ignore[arg-type]
            batch_size=None,
            sampler=plans,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
        )


class _Transformed:
    """The images of a plan, each passed through torchvision's transforms."""

    def __init__(self, dataset: PreparedDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, plan: BatchPlan) -> torch.Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as TF

        images = []
        for row, angle in zip(plan.image_rows, plan.angles):
            image = torch.tensor(self.dataset.image(row))[None].float() / 255
            turned = TF.affine(
                image, float(angle), [0.0, 0.0], 1.0, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR
            )
            images.append(TF.normalize(turned, [self.dataset.image_mean], [self.dataset.image_std]))
        return torch.stack(images)


def report(measured: dict[str, Any], options: LoaderOptions, out: Path | None) -> None:
    """Print the table, and write loader.json and loader.md to `out`."""
    from prior_fast.files import write_json
    from prior_fast.hardware.machine import describe_machine
    from prior_fast.tables import markdown_table

    header = ("source", "pairs/s", "ms a batch", f"waits at {options.consumer:.0f} pairs/s", "replaced")
    lines = [
        (
            row["source"],
            f"{row['pairs_per_second']:.0f}",
            f"{row['median_ms']:.1f}",
            f"{row['consumer_waits']:.1%}",
            str(row["replaced"]),
        )
        for row in measured["rows"]
    ]
    title = f"{measured['studies']} studies, batches of {options.batch}, {options.workers} workers"
    print_table(title, header, lines)
    parts_header = ("part of a batch", "ms of one thread")
    parts_lines = [(name, f"{value:.2f}") for name, value in measured["parts_ms"].items()]
    print_table("parts", parts_header, parts_lines)
    for name, reason in measured["left_out"].items():
        stdout.print(f"{name}: left out: {reason}")
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    asked = {"batch": options.batch, "workers": options.workers, "seconds": options.seconds}
    facts = {"kind": "loader", "machine": describe_machine(), "settings": {**asked, "consumer": options.consumer}}
    write_json(out / "loader.json", facts | measured)
    tables = [*markdown_table(header, lines), "", *markdown_table(parts_header, parts_lines), ""]
    (out / "loader.md").write_text("\n".join([title, "", *tables]), encoding="utf-8")
    stdout.print(f"loader.json and loader.md are in {out}")
