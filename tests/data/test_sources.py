"""All image sources give the same batches and complete epochs, and leave no threads, processes or open files."""

import dataclasses
import gc
import importlib.util
import io
import os
import shutil
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from prior_fast.batch import PackedBatch
from prior_fast.config import DataConfig
from prior_fast.data.batch_plan import EpochPlan
from prior_fast.data.loader import LoaderConfig, TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError

STILL = DataConfig(rotation=0.0, flip=False)
SOURCES = ("memory", "memory, ahead", "workers", "dali", "dali, jpegs")


@pytest.fixture(scope="module")
def dataset(small_store: Path) -> PreparedDataset:
    return PreparedDataset.open(small_store, "train")


def data_for(source: str, folder: Path, data: DataConfig = STILL) -> DataConfig:
    """The settings that choose a source; `folder` holds the files that the dataset was prepared from."""
    if source.startswith("dali") and importlib.util.find_spec("nvidia.dali") is None:
        pytest.skip("NVIDIA DALI is not installed")
    changes = {
        "memory": {"source": "memory", "workers": 0},
        "memory, ahead": {"source": "memory", "workers": 1},
        "workers": {"source": "workers", "workers": 1},
        "dali": {"source": "dali", "workers": 1},
        "dali, jpegs": {"source": "dali", "workers": 1, "jpegs": str(folder)},
    }
    return dataclasses.replace(data, **changes[source])


def open_loader(dataset: PreparedDataset, data: DataConfig, **changes: int) -> TrainingLoader:
    return TrainingLoader(dataset, dataclasses.replace(LoaderConfig(data, batch_size=4, seed=3), **changes))


def gray_levels(batch: PackedBatch, dataset: PreparedDataset) -> torch.Tensor:
    return (batch.images[:, 0].float() * dataset.image_std + dataset.image_mean) * 255


@pytest.mark.parametrize("source", SOURCES)
def test_images_without_augmentation_are_the_prepared_ones(source: str, dataset: PreparedDataset) -> None:
    loader = open_loader(dataset, data_for(source, dataset.root.parent / "phantom"))
    count = 0
    for batch in loader.epoch(0):
        prepared = torch.tensor(dataset.images[batch.image_rows.numpy()]).float()
        assert (gray_levels(batch, dataset) - prepared).abs().max() <= (1.001 if "jpegs" in source else 1e-2)
        count += len(batch)
    assert count == len(dataset) // 4 * 4


@pytest.mark.parametrize("source", SOURCES)
def test_augmented_images_are_those_of_the_reference(source: str, dataset: PreparedDataset) -> None:
    """The draws are equal, so images agree pixel by pixel; another sign, center, fill or flip would differ far more."""
    augmented = DataConfig(rotation=5.0, flip=True, workers=0)
    wanted = list(open_loader(dataset, augmented).epoch(1))
    folder = dataset.root.parent / "phantom"
    got = list(open_loader(dataset, data_for(source, folder, augmented)).epoch(1))
    inner = slice(8, -8)
    for a, b in zip(wanted, got, strict=True):
        assert torch.equal(a.study_ids, b.study_ids) and torch.equal(a.image_rows, b.image_rows)
        assert torch.equal(a.token_ids, b.token_ids)
        difference = (gray_levels(a, dataset) - gray_levels(b, dataset)).abs()
        assert difference[:, inner, inner].max() < (3.0 if "jpegs" in source else 0.5)
        assert difference.mean() < (0.6 if "jpegs" in source else 0.05)
    turned = open_loader(dataset, dataclasses.replace(augmented, rotation=-5.0))
    other_sign = (gray_levels(next(turned.epoch(1)), dataset) - gray_levels(wanted[0], dataset)).abs()
    assert other_sign.mean() > 2.0


def test_dalis_own_augmentation_is_that_of_the_reference(
    dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DALI's augmentation is used on GPUs, and on CPUs without the library."""
    augmented = DataConfig(rotation=5.0, flip=True, workers=0)
    wanted = list(open_loader(dataset, augmented).epoch(1))
    loader = open_loader(dataset, data_for("dali", dataset.root, augmented))
    monkeypatch.setattr(loader.source, "dali_rotates", True)
    for a, b in zip(wanted, loader.epoch(1), strict=True):
        difference = (gray_levels(a, dataset) - gray_levels(b, dataset)).abs()
        assert difference[:, 8:-8, 8:-8].max() < 0.5 and difference.mean() < 0.05


@pytest.mark.parametrize("source", [*SOURCES, "dali, rotating"])
def test_every_source_takes_the_nearest_pixel_if_asked(
    source: str, dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest pixel of a prepared image is a whole gray level; a mean of four is not."""
    nearest = DataConfig(rotation=5.0, interpolation="nearest", workers=0)
    wanted = list(open_loader(dataset, nearest).epoch(1))
    rotates = source == "dali, rotating"
    loader = open_loader(dataset, data_for("dali" if rotates else source, dataset.root.parent / "phantom", nearest))
    if rotates:
        monkeypatch.setattr(loader.source, "dali_rotates", True)
    for a, b in zip(wanted, loader.epoch(1), strict=True):
        first, second = gray_levels(a, dataset), gray_levels(b, dataset)
        assert (first - first.round()).abs().max() < 0.01
        # Half-way between two pixels rounding decides; decoded JPEG files differ by a level.
        assert ((first - second).abs() < (2.0 if "jpegs" in source else 0.01)).float().mean() > 0.98


@pytest.mark.parametrize("source", ["memory, ahead", "workers", "dali"])
def test_an_epoch_can_begin_in_its_middle(source: str, dataset: PreparedDataset) -> None:
    data = data_for(source, dataset.root, DataConfig())
    whole = list(open_loader(dataset, data).epoch(2))
    rest = list(open_loader(dataset, data).epoch(2, first=3))
    assert len(whole) == len(rest) + 3 > 4
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.token_ids, b.token_ids)


@pytest.mark.parametrize("last", ["drop", "fill"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_take_every_study_once(last: str, ranks: int, dataset: PreparedDataset) -> None:
    data = dataclasses.replace(STILL, workers=0, last=last)
    seen = [
        int(study)
        for rank in range(ranks)
        for batch in open_loader(dataset, data, batch_size=6, rank=rank, ranks=ranks).epoch(0)
        for study in batch.study_ids
    ]
    assert len(dataset) % 6
    if last == "drop":
        assert len(seen) == len(set(seen)) == len(dataset) // 6 * 6
    else:
        assert len(seen) == -(-len(dataset) // 6) * 6
        assert set(seen) == set(dataset.study_ids.tolist())
        assert max(map(seen.count, seen)) == 2


def test_token_counts_fall_into_buckets(dataset: PreparedDataset) -> None:
    plain = list(open_loader(dataset, dataclasses.replace(STILL, workers=0)).epoch(0))
    filled = list(open_loader(dataset, dataclasses.replace(STILL, workers=0, token_bucket=128)).epoch(0))
    assert len({len(batch.token_ids) for batch in plain}) > len({len(batch.token_ids) for batch in filled})
    for a, b in zip(plain, filled, strict=True):
        count = len(a.token_ids)
        assert len(b.token_ids) == count + b.filler == -(-count // 128) * 128
        assert torch.equal(a.token_ids, b.token_ids[:count]) and torch.equal(a.cu_tokens, b.cu_tokens)
        assert torch.equal(a.sentence_token_rows(), b.sentence_token_rows())


def test_filler_changes_no_sentence(dataset: PreparedDataset) -> None:
    from prior_fast.config import preset
    from prior_fast.model.build import build_model

    model, _ = build_model(preset("tiny").model, dataset.vocab_size, seed=0)
    model = model.double().eval()
    plain = next(open_loader(dataset, dataclasses.replace(STILL, workers=0)).epoch(0))
    filled = next(open_loader(dataset, dataclasses.replace(STILL, workers=0, token_bucket=512)).epoch(0))
    assert filled.filler
    with torch.no_grad():
        torch.testing.assert_close(model.encode_sentences(plain), model.encode_sentences(filled))


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()
    elif how == "text":
        path.write_bytes(b"this is no picture" + b"\xff\xd9")
    else:  # valid headers, then a truncated file
        path.write_bytes(data[:64] + os.urandom(200) + b"\xff\xd9")


@pytest.mark.parametrize("how", ["cut", "empty", "missing", "text", "garbled"])
def test_a_broken_file_is_replaced_and_counted(how: str, dataset: PreparedDataset, tmp_path: Path) -> None:
    copy = tmp_path / "phantom"
    shutil.copytree(dataset.root.parent / "phantom", copy)
    loader = open_loader(dataset, data_for("dali, jpegs", copy))
    broken = [row for row in range(0, 12, 5) if row < int(dataset.image_end[-1])]
    for row in broken:
        damage(loader.source.encoded.path(row), how)
    wanted, replaced = 0, 0
    for batch in loader.epoch(0):
        prepared = torch.tensor(dataset.images[batch.image_rows.numpy()]).float()
        assert (gray_levels(batch, dataset) - prepared).abs().max() <= 1.001
        replaced += sum(int(row) in broken for row in batch.image_rows)
        wanted += len(batch)
    assert wanted == len(dataset) // 4 * 4
    assert replaced > 0
    # A batch on which DALI failed is read again.
    assert loader.source.replaced >= replaced


@pytest.mark.parametrize("kind", ["progressive", "rgb"])
def test_jpegs_of_other_kinds_are_read(kind: str, dataset: PreparedDataset, tmp_path: Path) -> None:
    copy = tmp_path / "phantom"
    shutil.copytree(dataset.root.parent / "phantom", copy)
    loader = open_loader(dataset, data_for("dali, jpegs", copy))
    wanted = list(loader.epoch(0))
    for path in map(loader.source.encoded.path, range(int(dataset.image_end[-1]))):
        image = Image.open(path)
        changed = io.BytesIO()
        image.convert("RGB" if kind == "rgb" else "L").save(
            changed, "JPEG", quality=100, subsampling=0, progressive=kind == "progressive"
        )
        path.write_bytes(changed.getvalue())
    for a, b in zip(wanted, loader.epoch(0), strict=True):
        assert (gray_levels(a, dataset) - gray_levels(b, dataset)).abs().max() < 3.0
    assert loader.source.replaced == 0


def test_real_jpegs_through_all_sources(real_cxr: Path, tmp_path: Path) -> None:
    from prior_fast.cli.main import main

    assert main(["prepare", "mimic", "--images", str(real_cxr), "--out", str(tmp_path / "prepared")]) == 0
    dataset = PreparedDataset.open(tmp_path / "prepared", "train")
    for source in SOURCES:
        loader = open_loader(dataset, data_for(source, real_cxr), batch_size=8)
        for batch in loader.epoch(0):
            prepared = torch.tensor(dataset.images[batch.image_rows.numpy()]).float()
            assert (gray_levels(batch, dataset) - prepared).abs().max() <= 1.001, source
        assert loader.source.replaced == 0


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_left_behind(source: str, dataset: PreparedDataset) -> None:
    """No threads, child processes or open files, also if an epoch is abandoned in the middle."""
    loader = open_loader(dataset, data_for(source, dataset.root.parent / "phantom"))
    list(loader.epoch(0))  # files that libraries open once and keep open are open now
    gc.collect()
    process = psutil.Process()
    before = threading.active_count(), process.num_threads(), process.num_fds(), len(process.children())
    for number in range(3):
        stream = loader.epoch(number)
        next(stream)
        stream.close()
        del stream
    after = None
    # A queue's own thread takes a moment to notice that it was closed, longer on a busy machine.
    for _ in range(3000):
        gc.collect()
        after = threading.active_count(), process.num_threads(), process.num_fds(), len(process.children())
        if all(b <= a for a, b in zip(before, after)):
            return
        time.sleep(0.1)
    pytest.fail(f"{before} before, {after} after")


@pytest.mark.parametrize("source", ["memory, ahead", "dali", pytest.param("dali, jpegs", marks=pytest.mark.slow)])
def test_memory_stays_flat_over_a_thousand_batches(source: str, dataset: PreparedDataset) -> None:
    loader = open_loader(dataset, data_for(source, dataset.root.parent / "phantom", DataConfig()))
    plans = (EpochPlan(dataset, loader.config, epoch)[n] for epoch in range(1000) for n in range(len(loader)))
    process, sizes = psutil.Process(), []
    for images in loader.source.stream(islice(plans, 1000)):
        assert images.shape == (4, 1, 224, 224)
        sizes.append(process.memory_info().rss)
    assert len(sizes) == 1000
    # Growth between the third and the last fifth is less than ten batches of images, out of 400 batches made.
    growth = np.median(sizes[800:]) - np.median(sizes[400:600])
    assert growth < 10 * images.nbytes, f"{growth / 2**20:.1f} MiB more in 300 batches"


def test_a_source_that_is_not_installed_is_named(dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'prior-fast\[dali\]'"):
        open_loader(dataset, dataclasses.replace(STILL, source="dali"))


def test_a_folder_without_the_files_is_named(dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data.jpegs=.*: it has no .*\.jpg; give the folder that was prepared"):
        open_loader(dataset, data_for("dali, jpegs", tmp_path))


def test_images_on_a_gpu_want_one(dataset: PreparedDataset) -> None:
    with pytest.raises(UsageError, match=r"data.images=gpu: 0.0 GiB of images, and training runs on the CPU"):
        open_loader(dataset, dataclasses.replace(STILL, images="gpu"))
