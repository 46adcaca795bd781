"""The full-size files of `data.jpegs`: which are decoded, which are replaced, and which are refused."""

import importlib.util
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from prior_fast.config import DataConfig
from prior_fast.data.loader import LoaderConfig, TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.encoded import EncodedImages
from prior_fast.errors import UsageError
from tests.evaluation.own_store import write_info

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (260, 300)).astype(np.uint8))


def encode(kind: str, image: Image.Image = PICTURE) -> bytes:
    buffer = io.BytesIO()
    if kind == "PNG, 16 bits":
        Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(buffer, "PNG")
    elif kind == "DICOM":
        return bytes(128) + b"DICM" + bytes(100)
    else:
        image.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def tree(small_store: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a dataset whose images have paths of their own, and the folder of the files: PNG and JPEG."""
    root, files = shutil.copytree(small_store, tmp_path / "prepared"), tmp_path / "files of mine"
    files.mkdir()
    table = pq.read_table(root / "manifest.parquet")
    paths, row = [], 0
    dataset = PreparedDataset.open(root)
    for images in table["dicom_ids"].to_pylist():
        paths.append([f"{image[:8]}/{row + place}.dat" for place, image in enumerate(images)])
        for path in paths[-1]:
            (files / path).parent.mkdir(exist_ok=True)
            # As large as the prepared image, which is then the decoded one.
            whole = Image.fromarray(dataset.image(row))
            if row % 2:
                whole.save(files / path, "PNG")
            else:
                whole.save(files / path, "JPEG", quality=100)
            row += 1
    if "image_paths" in table.schema.names:
        table = table.drop_columns(["image_paths"])
    pq.write_table(table.append_column("image_paths", pa.array(paths)), root / "manifest.parquet")
    write_info(root, {})
    return root, files


def test_the_paths_of_the_dataset_are_used(tree: tuple[Path, Path]) -> None:
    dataset = PreparedDataset.open(tree[0], "train")
    images = EncodedImages(dataset, tree[1])
    assert dataset.image_paths is not None
    for row in range(int(dataset.image_end[-1])):
        assert images.path(row) == tree[1] / dataset.image_paths[row]
        assert images.read(np.array([row]))[0].tobytes() == images.path(row).read_bytes()
    assert images.replaced == 0 and not images.broken


@pytest.mark.parametrize("named", [True, False])
def test_mimics_folders_are_found_with_and_without_paths(named: bool, small_store: Path, tmp_path: Path) -> None:
    root, phantom = shutil.copytree(small_store, tmp_path / "prepared"), small_store.parent / "phantom"
    if not named:
        table = pq.read_table(root / "manifest.parquet")
        newer = [name for name in ("study", "subject", "image_paths") if name in table.schema.names]
        pq.write_table(table.drop_columns(newer), root / "manifest.parquet")
        write_info(root, {})
    dataset = PreparedDataset.open(root, "validate")
    assert (dataset.image_paths is not None) == named
    # The root of the tree and its folder `files`: `prepare mimic` takes both.
    first, second = EncodedImages(dataset, phantom), EncodedImages(dataset, phantom / "files")
    for index in range(len(dataset)):
        for row in dataset.image_rows(index):
            assert first.path(row) == second.path(row) and first.path(row).is_file()
            assert f"s{dataset.study_ids[index]}" in str(first.path(row))


@pytest.mark.parametrize("kind", ["PNG, 16 bits", "TIFF", "WEBP", "BMP"])
def test_other_formats_are_refused_before_training(kind: str, tree: tuple[Path, Path]) -> None:
    dataset = PreparedDataset.open(tree[0], "train")
    for row in range(4):
        (tree[1] / dataset.image_paths[row]).write_bytes(encode(kind))
    with pytest.raises(UsageError) as error:
        EncodedImages(dataset, tree[1])
    assert str(error.value) == (
        f"data.jpegs={tree[1]}: {dataset.image_paths[0]} is no JPEG, and no PNG of 8 bits or fewer; use the prepared "
        "images (leave data.jpegs out)"
    )
    # A broken first file tells nothing; the next one does.
    (tree[1] / dataset.image_paths[0]).write_bytes(b"")
    with pytest.raises(UsageError, match=rf"{dataset.image_paths[1]} is no JPEG"):
        EncodedImages(dataset, tree[1])


@pytest.mark.parametrize("kind", ["PNG, 16 bits", "TIFF", "DICOM", "cut PNG", "cut JPEG", "padded PNG", "padded JPEG"])
def test_a_single_other_or_broken_file_is_replaced_and_counted(kind: str, tree: tuple[Path, Path]) -> None:
    dataset = PreparedDataset.open(tree[0], "train")
    name = kind.removeprefix("cut ").removeprefix("padded ")
    data = encode(name)
    if kind.startswith("cut"):
        data = data[: len(data) // 2]
    elif kind.startswith("padded"):
        data += bytes(500)
    (tree[1] / dataset.image_paths[5]).write_bytes(data)
    images = EncodedImages(dataset, tree[1])
    first, again = (images.read(np.array([4, 5, 5]))[1].tobytes() for _ in range(2))
    if kind.startswith("padded"):
        assert first == again == data and images.replaced == 0
        return
    assert first == again and images.replaced == 4 and images.broken == {5}
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(first))), dataset.image(5))


def test_a_folder_without_the_files_is_named(tree: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = PreparedDataset.open(tree[0], "train")
    (tmp_path / "none/files").mkdir(parents=True)
    for folder in (tmp_path / "none", tmp_path / "none/files"):
        with pytest.raises(UsageError, match=rf"data.jpegs={folder}: it has no {dataset.image_paths[0]}; give the"):
            EncodedImages(dataset, folder)


def test_png_files_through_dali_are_the_prepared_images(tree: tuple[Path, Path]) -> None:
    if importlib.util.find_spec("nvidia.dali") is None:
        pytest.skip("NVIDIA DALI is not installed")
    dataset = PreparedDataset.open(tree[0], "train")
    data = DataConfig(rotation=0.0, flip=False, source="dali", workers=1, jpegs=str(tree[1]))
    loader, rows, differences = TrainingLoader(dataset, LoaderConfig(data, batch_size=4, seed=3)), [], []
    for batch in loader.epoch(0):
        levels = (batch.images[:, 0].float() * dataset.image_std + dataset.image_mean) * 255
        prepared = torch.tensor(dataset.images[batch.image_rows.numpy()]).float()
        rows.append(batch.image_rows)
        differences.append((levels - prepared).abs().amax(dim=(1, 2)))
    is_png, most = torch.cat(rows) % 2 == 1, torch.cat(differences)
    assert is_png.sum() >= 4 and (~is_png).sum() >= 4 and loader.source.replaced == 0
    # JPEG is not lossless.
    assert most[is_png].max() <= 1e-2 and most.max() <= 3
