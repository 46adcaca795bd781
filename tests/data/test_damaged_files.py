"""Full-size files that are damaged or swapped are not trained on: the prepared images are, counted and named."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prior_fast.config import DataConfig
from prior_fast.data.loader import LoaderConfig, TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.compared import Comparison, differs
from prior_fast.data.sources.encoded import EncodedImages
from prior_fast.radiology.jpeg_markers import read_markers
from prior_fast.radiology.xray import read_xray

DAMAGED = 4


@pytest.fixture
def files(small_store: Path, tmp_path: Path) -> tuple[PreparedDataset, Path]:
    """A dataset, and a copy of the files that it was prepared from."""
    shutil.copytree(small_store.parent / "phantom", tmp_path / "raw")
    return PreparedDataset.open(small_store, "train"), tmp_path / "raw"


def damage(path: Path, how: str, other: Path) -> None:
    data = path.read_bytes()
    scan = read_markers(data).scans[0]
    middle = (scan.begin + scan.end) // 2
    if how == "cut, with its end":
        path.write_bytes(data[:middle] + b"\xff\xd9")
    elif how == "zeros":
        path.write_bytes(data[:middle] + bytes(600) + data[middle + 600 :])
    elif how == "garbage":
        # Without FF, so that no marker shows it.
        garbage = np.random.default_rng(1).integers(0, 255, 200).astype(np.uint8).tobytes()
        path.write_bytes(data[:middle] + garbage + data[middle + 200 :])
    else:
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("how", ["cut, with its end", "zeros", "garbage", "swapped"])
def test_dali_never_trains_on_a_damaged_file(
    how: str, files: tuple[PreparedDataset, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("nvidia.dali") is None:
        pytest.skip("NVIDIA DALI is not installed")
    dataset, folder = files
    data = DataConfig(rotation=0.0, flip=False, source="dali", workers=1, jpegs=str(folder))
    loader = TrainingLoader(dataset, LoaderConfig(data, batch_size=4, seed=3))
    path = loader.source.encoded.path(DAMAGED)
    damage(path, how, loader.source.encoded.path(DAMAGED + 1))
    seen = 0
    for epoch in range(3):
        for batch in loader.epoch(epoch):
            levels = (batch.images[:, 0].float() * dataset.image_std + dataset.image_mean) * 255
            prepared = torch.tensor(dataset.images[batch.image_rows.numpy()]).float()
            assert (levels - prepared).abs().max() <= 1.001
            seen += int((batch.image_rows == DAMAGED).sum())
    assert seen >= 2 and loader.source.replaced == seen and loader.source.encoded.broken == {DAMAGED}
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.count("the prepared image is used instead") == 1 and path.name in shown


def test_a_file_whose_damage_shows_in_its_bytes_is_not_decoded(files: tuple[PreparedDataset, Path]) -> None:
    dataset, folder = files
    images = EncodedImages(dataset, folder)
    damage(images.path(DAMAGED), "zeros", images.path(DAMAGED))
    whole, replacement = images.read(np.array([0, DAMAGED]))
    assert images.replaced == 1 and images.broken == {DAMAGED}
    assert whole.tobytes().startswith(b"\xff\xd8") and replacement.tobytes().startswith(b"\x89PNG")


def test_many_unusable_files_do_not_flood_the_terminal(
    files: tuple[PreparedDataset, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, folder = files
    images = EncodedImages(dataset, folder)
    for row in range(14):
        images.was_replaced(row, "differs")
        images.was_replaced(row, "differs")
    assert images.replaced == 28
    shown = capsys.readouterr().err
    assert shown.count("is used instead") == 10 and shown.count("only counted") == 1


def test_damage_of_a_corner_differs_and_noise_of_decoders_does_not() -> None:
    rng = np.random.default_rng(0)
    prepared = torch.from_numpy(rng.integers(20, 230, (4, 224, 224)).astype(np.uint8))
    decoded = prepared.clone()
    decoded[1] += torch.from_numpy(rng.integers(0, 7, (224, 224)).astype(np.uint8))
    decoded[2, 216:, 216:] = 128
    decoded[3] = 255 - decoded[3]
    assert differs(decoded, prepared).tolist() == [False, False, True, True]


def test_replaced_images_are_the_prepared_ones_and_are_counted(files: tuple[PreparedDataset, Path]) -> None:
    dataset, folder = files
    comparison = Comparison(EncodedImages(dataset, folder))
    rows = np.array([3, 7, 3])
    prepared = torch.tensor(dataset.images[rows])
    decoded = prepared.clone()
    decoded[1] = 0
    assert torch.equal(comparison.checked(decoded, prepared, rows), prepared)
    assert comparison.encoded.replaced == 1 and comparison.encoded.broken == {7}


def test_decoding_fast_or_exactly_does_not_differ(real_cxr: Path, tmp_path: Path) -> None:
    for path in sorted(real_cxr.glob("files/*/*/*/*.jpg"))[::40]:
        with Image.open(path) as image:
            image.resize((4 * image.width, 4 * image.height)).save(tmp_path / "a.jpg")
        exact, fast = (torch.tensor(read_xray(tmp_path / "a.jpg", decode)[0])[None] for decode in ("exact", "fast"))
        assert not torch.equal(exact, fast) and not differs(exact, fast).any()
