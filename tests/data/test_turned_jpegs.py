"""JPEG files that their EXIF orientation turns: DALI reads them as `prior-fast prepare` did."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from prior_fast.cli.main import main
from prior_fast.config import DataConfig
from prior_fast.data.loader import LoaderConfig, TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.radiology.xray import read_xray

if importlib.util.find_spec("nvidia.dali") is None:
    pytest.skip("NVIDIA DALI is not installed", allow_module_level=True)


def turn_by_metadata(path: Path, orientation: int) -> None:
    """Store the same picture with its pixels turned and an orientation that turns them back, or not at all."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with Image.open(path) as image:
        # Not square: a turn that is left out would change the shape.
        image.resize((300, 260)).save(path, quality=95, exif=exif)


def test_turned_files_through_dali_are_the_prepared_images(small_store: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(small_store.parent / "phantom", raw)
    files = sorted(raw.glob("files/p*/p*/s*/*.jpg"))
    for number, path in enumerate(files):
        turn_by_metadata(path, number % 8 + 1)
    upright, size = read_xray(files[0])
    on_its_side, other_size = read_xray(files[5])
    assert (size, other_size) == ((300, 260), (260, 300)) and not np.array_equal(upright, on_its_side)
    assert main(["prepare", "mimic", "--images", str(raw), "--out", str(tmp_path / "prepared")]) == 0
    dataset = PreparedDataset.open(tmp_path / "prepared", "train")
    data = DataConfig(rotation=0.0, flip=False, source="dali", workers=1, jpegs=str(raw))
    loader = TrainingLoader(dataset, LoaderConfig(data, batch_size=4, seed=3))
    count = 0
    for batch in loader.epoch(0):
        levels = (batch.images[:, 0].float() * dataset.image_std + dataset.image_mean) * 255
        prepared = torch.tensor(dataset.images[batch.image_rows.numpy()]).float()
        assert (levels - prepared).abs().max() <= 1.001
        count += len(batch)
    assert count >= 16 and loader.source.replaced == 0
