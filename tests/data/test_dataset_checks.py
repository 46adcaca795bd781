"""A dataset.json or a manifest that does not fit is refused in one line that names the file and the entry."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from tests.downstream.fake_dataset import write_squares
from tests.evaluation.fake_store import write_store
from tests.evaluation.own_store import write_info

Info = dict[str, Any]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    lists = {"prior-0": (range(4), range(4, 6), range(6, 8))}
    return {
        "prepared": write_store(folder / "prepared", per_class=1, train=2),
        "labelled": write_squares(folder / "labelled", [True, False] * 4, lists),
    }


def refused(kind: str, root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        LabelledDataset.open(root, "full") if kind == "labelled" else PreparedDataset.open(root, verify="full")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def put(key: str, value: Any) -> Callable[[Info], None]:
    def change(info: Info) -> None:
        *parents, last = key.split("/")
        for parent in parents:
            info = info[parent]
        info[last] = value

    return change


def drop(key: str) -> Callable[[Info], None]:
    def change(info: Info) -> None:
        *parents, last = key.split("/")
        for parent in parents:
            info = info[parent]
        del info[last]

    return change


BOTH = [
    *((drop(key), f"has no entry {key!r}") for key in ("files", "images", "splits", "image_mean", "image_std")),
    (put("images", "7"), "has images='7', which is not a whole number of 0 or more"),
    (put("images", True), "has images='True'"),
    (put("images", 10**15), "images.npy holds uint8"),
    (put("image_std", float("nan")), "has image_std='nan', which is not a number from 0 to 1"),
    (put("image_std", -0.2), "has image_std='-0.2'"),
    (put("image_mean", None), "has image_mean='None'"),
    (put("splits", []), "has splits='[]', which is not an object"),
    (put("files", ["images.npy"]), "has files="),
    (put("files", {}), "does not list images.npy in 'files'"),
    (put("files/..\\x", {"bytes": 1}), "is missing"),
    (put("files/images.npy", {}), "has no size of images.npy in 'files'"),
    (put("files/images.npy", {"bytes": 1.5}), "has no size of images.npy in 'files'"),
    (drop("files/images.npy/sha256"), "has no sha256 of images.npy in 'files', which verify=full compares"),
    (put("files/images.npy/sha256", 7), "has a sha256 of images.npy in 'files' that is none"),
]
OUTSIDE = [
    (name, f"lists the file {name!r} in 'files', which is not inside")
    for name in ("../x", "/etc/passwd", "a/../../b", "")
]
CASES = [
    *((kind, change, message) for kind in ("prepared", "labelled") for change, message in BOTH),
    *(
        (kind, lambda info, name=name: info["files"].update({name: {"bytes": 1}}), message)
        for kind in ("prepared", "labelled")
        for name, message in OUTSIDE
    ),
    ("prepared", drop("tokenizer"), "has no entry 'tokenizer.vocab_size'"),
    ("prepared", put("tokenizer", 5), "has no entry 'tokenizer.vocab_size'"),
    ("prepared", put("tokenizer/vocab_size", 3), "tokens.npy holds tokens from"),
    ("prepared", put("labels", ["Edema", "Edema"]), "has labels="),
    ("prepared", put("labels", ["Nodule"]), "manifest.parquet has no column 'Nodule'"),
    ("prepared", put("splits/train", 5), "has no number of studies of 'train' in 'splits'"),
    ("prepared", put("studies", 3), "manifest.parquet has"),
    ("prepared", put("tokens", 3), "tokens.npy holds int32"),
    ("labelled", drop("classes"), "has no entry 'classes'"),
    ("labelled", drop("name"), "has no entry 'name'"),
    ("labelled", put("has_boxes", 1), "has has_boxes='1', which is not true or false"),
    ("labelled", put("classes", ["A", "B"]), "the column 'labels' has 1 entries in row 0, but dataset.json has 2"),
]


@pytest.mark.parametrize("kind, change, message", CASES)
def test_entries(
    kind: str, change: Callable[[Info], None], message: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(stores[kind], tmp_path / "data")
    info = json.loads((root / "dataset.json").read_text())
    info.pop("seal", None)
    change(info)
    (root / "dataset.json").write_text(json.dumps(info))
    found = refused(kind, root)
    assert message in found and str(root) in found


def test_a_changed_value_does_not_fit_the_seal(stores: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(stores["labelled"], tmp_path / "data")
    info = json.loads((root / "dataset.json").read_text())
    assert "seal" in info
    (root / "dataset.json").write_text(json.dumps({**info, "image_mean": 0.123}))
    assert "dataset.json can't be used (its content was changed or damaged" in refused("labelled", root)


def numbers(name: str, row: int, value: int) -> Callable[[pa.Table], pa.Table]:
    """A table with another value in a column of whole numbers."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        return table.set_column(table.schema.get_field_index(name), name, pa.array(values, table[name].type))

    return change


def column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values)


MANIFESTS = [
    *(
        ("prepared", lambda table, name=name: table.drop_columns([name]), f"has no column {name!r}")
        for name in ("study_id", "image_begin", "sentence_end", "Edema")
    ),
    ("prepared", numbers("image_end", 8, 10**6), "image_begin, image_end of row 8 are"),
    ("prepared", numbers("image_begin", 0, -1), "image_begin, image_end of row 0 are -1, 1"),
    ("prepared", numbers("sentence_end", 3, 0), "sentence_begin, sentence_end of row 3"),
    ("prepared", numbers("study_id", 0, None), "the column 'study_id' lacks values"),
    ("prepared", lambda table: table.slice(1), "manifest.parquet has 8 studies, not 9"),
    ("labelled", lambda table: table.drop_columns(["labels"]), "has no column 'labels'"),
    ("labelled", column("image_id", pa.array(["x"] * 8)), "the column 'image_id' names an image twice"),
    ("labelled", column("image_id", pa.array(range(8))), "the column 'image_id' holds int64, not texts"),
    ("labelled", column("labels", pa.array([[1.0, 0.0]] * 8)), "the column 'labels' has 2 entries in row 0"),
    ("labelled", lambda table: table.slice(1), "manifest.parquet has 7 images, not 8"),
]


@pytest.mark.parametrize("kind, change, message", MANIFESTS)
def test_manifests(kind: str, change: Callable, message: str, stores: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(stores[kind], tmp_path / "data")
    pq.write_table(change(pq.read_table(root / "manifest.parquet")), root / "manifest.parquet")
    write_info(root, {})
    found = refused(kind, root)
    assert message in found and str(root / "manifest.parquet") in found


def test_lists_of_other_lengths(stores: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(stores["prepared"], tmp_path / "data")
    table = pq.read_table(root / "manifest.parquet")
    pq.write_table(column("sentences", pa.array([["One ."]] * len(table)))(table), root / "manifest.parquet")
    write_info(root, {})
    dataset = PreparedDataset.open(root, verify="full")
    with pytest.raises(UsageError, match="the column 'sentences' has 1 entries in row 0, not 5"):
        dataset.sentences(0)


def test_offsets_that_fall(stores: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(stores["prepared"], tmp_path / "data")
    offsets = np.load(root / "sentence_offsets.npy")
    offsets[3] = 10**9
    np.save(root / "sentence_offsets.npy", offsets)
    write_info(root, {})
    assert "sentence_offsets.npy does not rise from 0 to" in refused("prepared", root)


def test_masks_that_are_none(stores: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(stores["labelled"], tmp_path / "data")
    table = pq.read_table(root / "manifest.parquet")
    pq.write_table(column("mask", pa.array([b"\x89PNG"] * 8))(table), root / "manifest.parquet")
    write_info(root, {})
    with pytest.raises(UsageError, match=r"manifest\.parquet: the mask of row 0 can't be read"):
        LabelledDataset.open(root).mask(0)
