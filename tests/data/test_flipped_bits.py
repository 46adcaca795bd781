"""A flipped bit in any file of a dataset is found, or changes nothing; without SHA-256 it ends in no other error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.files.sealed import write_sealed
from tests.data.flips import flipped, places
from tests.downstream.fake_dataset import write_squares
from tests.evaluation.fake_store import write_store

# Files of a dataset in which a flipped bit may stay unnoticed: none.
WITHOUT_MEANING: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_store(tmp_path_factory.mktemp("prepared") / "data", per_class=1, train=2)
    info = json.loads((root / "dataset.json").read_text())
    write_sealed(root / "dataset.json", info)
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lists = {"prior-0": (range(4), range(4, 6), range(6, 8))}
    root = write_squares(tmp_path_factory.mktemp("labelled") / "data", [True, False] * 4, lists)
    info = json.loads((root / "dataset.json").read_text())
    info.pop("seal", None)
    write_sealed(root / "dataset.json", info)
    return root


def read_prepared(root: Path, verify: Any) -> tuple:
    """Everything that a prepared dataset gives."""
    dataset = PreparedDataset.open(root, verify=verify)
    texts = [dataset.sentences(index) for index in range(len(dataset))]
    tokens = [dataset.sentence_tokens(index) for index in range(len(dataset))]
    dataset.annotations()
    return dataset.info, dataset.study_names, dataset.subject_names, dataset.tokenizer().get_vocab(), texts, tokens


def read_labelled(root: Path, verify: Any) -> tuple:
    """Everything that a labelled dataset gives."""
    dataset = LabelledDataset.open(root, verify)
    marks = [
        (dataset.boxes(row).tolist(), dataset.box_classes(row), dataset.mask(row).sum()) for row in range(len(dataset))
    ]
    splits = [dataset.split(name, percent) for name in dataset.split_names for percent in (1, 10, 100)]
    return dataset.info, dataset.image_ids, dataset.labels, marks, splits


KINDS: dict[str, Callable[[Path, Any], tuple]] = {"prepared": read_prepared, "labelled": read_labelled}


@pytest.mark.parametrize("kind", KINDS)
def test_each_flipped_bit_is_found(kind: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(kind)
    read = KINDS[kind]
    whole = read(root, "full")[0]
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size):
        if path.name in WITHOUT_MEANING:
            continue
        sealed = path.name == "dataset.json"
        for position, bit in places(path, 150 if sealed else 6):
            with flipped(path, position, bit):
                if sealed:
                    # A bit in the name of the entry `seal`, or in the case of an exponent's e, changes no value.
                    try:
                        info = read(root, "sizes")[0]
                    except UsageError as error:
                        assert path.name in str(error) or str(root) in str(error)
                    else:
                        assert {name: info[name] for name in whole} == whole, (position, bit)
                else:
                    with pytest.raises(UsageError, match=path.name):
                        read(root, "full")


@pytest.mark.parametrize("kind", KINDS)
def test_without_sha256_a_flipped_bit_is_one_line_or_unnoticed(kind: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(kind)
    refused = 0
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size):
        # The header of images.npy; other files throughout.
        for position, bit in places(path, 12, 128 if path.name == "images.npy" else None):
            with flipped(path, position, bit):
                try:
                    KINDS[kind](root, "sizes")
                except UsageError as error:
                    refused += 1
                    assert "\n" not in str(error) and str(root) in str(error)
    assert refused > 20


def test_a_cut_or_missing_tokenizer_is_one_line(prepared: Path, tmp_path: Path) -> None:
    root = shutil.copytree(prepared, tmp_path / "data")
    dataset, file = PreparedDataset.open(root), root / "tokenizer/tokenizer.json"
    content = file.read_text()
    for damaged, message in ((content[:100], "can't be read"), ("", "can't be read"), ("{}", "can't be read")):
        file.write_text(damaged)
        with pytest.raises(UsageError, match=message):
            dataset.tokenizer()
    value = json.loads(content)
    value["model"]["vocab"].popitem()
    file.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=rf"has {dataset.vocab_size - 1} tokens, not {dataset.vocab_size}"):
        dataset.tokenizer()
    file.unlink()
    with pytest.raises(UsageError, match=r"tokenizer\.json is missing"):
        dataset.tokenizer()
    assert np.isfinite(dataset.image_std)
