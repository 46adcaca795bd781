import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prior_fast.batch import pack_reports
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.files import sha256
from prior_fast.prepare.studies.pipeline import prepare_studies
from prior_fast.radiology.labels import CHEXPERT_LABELS, present
from tests.prepare.mimic_tree import mimic_options, small_tree

FILES = (
    *("images.npy", "tokens.npy", "sentence_offsets.npy", "manifest.parquet", "rejected.csv"),
    *("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small prepared dataset; not to be changed."""
    folder = tmp_path_factory.mktemp("store")
    prepare_studies(mimic_options(images=small_tree(folder / "tree").root, out=folder / "prepared"))
    return folder / "prepared"


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the dataset, to be damaged."""
    return shutil.copytree(made, tmp_path / "prepared")


def test_splits_part_the_dataset(made):
    whole = PreparedDataset.open(made)
    parts = [PreparedDataset.open(made, split) for split in ("train", "validate", "test")]
    assert len(whole) == sum(map(len, parts)) == 20
    for name in ("study_ids", "subject_ids", "labels", "sentence_counts"):
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))
    rows = [row for part in parts for index in range(len(part)) for row in part.image_rows(index)]
    assert rows == list(range(len(whole.images)))
    index = len(parts[0]) + 1
    assert whole.sentences(index) == parts[1].sentences(1)
    for one, other in zip(whole.sentence_tokens(index), parts[1].sentence_tokens(1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_shapes_and_types(made):
    dataset = PreparedDataset.open(made, "train")
    count = len(dataset)
    assert (dataset.study_ids.dtype, dataset.study_ids.shape) == (np.int64, (count,))
    assert (dataset.labels.dtype, dataset.labels.shape) == (np.float32, (count, len(CHEXPERT_LABELS)))
    assert isinstance(dataset.images, np.memmap)
    image = dataset.image(dataset.image_rows(0)[0])
    assert (image.dtype, image.shape) == (np.uint8, (224, 224))
    assert np.shares_memory(image, dataset.images)
    for index in range(count):
        tokens = dataset.sentence_tokens(index)
        assert len(tokens) == len(dataset.sentences(index)) == dataset.sentence_count(index)
        assert dataset.sentence_count(index) == dataset.sentence_counts[index]
        assert {array.dtype for array in tokens} == {np.dtype(np.int32)}
    assert dataset.annotations() == []


def test_the_tokenizer_agrees_with_the_facts(made):
    dataset = PreparedDataset.open(made)
    tokenizer = dataset.tokenizer()
    facts = (len(tokenizer), tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert facts == (dataset.vocab_size, dataset.cls_id, dataset.sep_id)
    assert dataset.info["splits"]["train"]["tokens"] > 0
    packed = pack_reports([dataset.sentence_tokens(0)], dataset.cls_id, dataset.sep_id)
    text = tokenizer.decode(packed.token_ids, skip_special_tokens=True)
    assert "".join(text.split()) == "".join("".join(dataset.sentences(0)).lower().split())


def test_a_pickled_dataset_maps_the_files_again(made):
    dataset = PreparedDataset.open(made, "test")
    dataset.sentences(0)
    data = pickle.dumps(dataset)
    assert len(data) < 4000
    again = pickle.loads(data)
    assert again.split == "test"
    np.testing.assert_array_equal(again.images, dataset.images)
    np.testing.assert_array_equal(again.study_ids, dataset.study_ids)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UsageError, match=f"{name} is missing"):
        PreparedDataset.open(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_named(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(UsageError, match=f"{name} has {len(data) - 1} bytes, not {len(data)}"):
        PreparedDataset.open(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found_by_the_full_check(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(UsageError, match=f"{name} was changed"):
        PreparedDataset.open(copy, verify="full")


def test_every_file_is_listed(made):
    listed = set(json.loads((made / "dataset.json").read_text(encoding="utf-8"))["files"])
    there = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert listed == set(FILES) == there - {"dataset.json", "report.json", "preview.png"}


def test_damage_that_keeps_the_size(copy):
    for name, message in [("manifest.parquet", "can't be read"), ("tokens.npy", "can't be read")]:
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(bytes(len(data)))
        with pytest.raises(UsageError, match=f"{name} {message}"):
            PreparedDataset.open(copy)
        (copy / name).write_bytes(data)
    tokens = np.load(copy / "tokens.npy")
    np.save(copy / "tokens.npy", tokens.astype(np.uint32))
    with pytest.raises(UsageError, match=r"tokens.npy holds uint32 .* not int32"):
        PreparedDataset.open(copy)
    np.save(copy / "tokens.npy", tokens[None])
    with pytest.raises(UsageError, match=r"tokens.npy holds int32 \(1, \d+\), not int32 \(\d+,\)"):
        PreparedDataset.open(copy)


def test_what_is_no_dataset(copy, tmp_path):
    def message(**changes) -> str:
        info = json.loads((copy / "dataset.json").read_text(encoding="utf-8"))
        info.pop("seal", None)
        path = tmp_path / "other"
        path.mkdir(exist_ok=True)
        (path / "dataset.json").write_text(json.dumps({**info, **changes}), encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            PreparedDataset.open(path)
        return str(caught.value)

    assert "is of format 'else', not 'prior-fast-dataset'" in message(format="else")
    assert "has version 2; this prior-fast reads version 1" in message(version=2)
    (tmp_path / "other/dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="is not valid JSON"):
        PreparedDataset.open(tmp_path / "other")
    with pytest.raises(UsageError, match="is no prepared dataset"):
        PreparedDataset.open(tmp_path)


def test_splits_that_are_not_there(tmp_path, made):
    with pytest.raises(UsageError, match=r"no split 'valid': did you mean 'validate'\? it has train \(12 studies\)"):
        PreparedDataset.open(made, "valid")
    tree = small_tree(tmp_path / "tree", studies=3)
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))
    with pytest.raises(
        UsageError, match=r"the split 'test' of .* has no study; it has train \(3 studies\), validate \(0"
    ):
        PreparedDataset.open(tmp_path / "out", "test")
    with pytest.raises(ValueError, match="'sizes' or 'full'"):
        PreparedDataset.open(made, verify="some")


def rewrite(root, change, **info):
    """Change the manifest of a dataset, and list it in dataset.json as it is then."""
    path = root / "manifest.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    stored = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    stored.pop("seal", None)
    stored["files"]["manifest.parquet"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (root / "dataset.json").write_text(json.dumps({**stored, **info}), encoding="utf-8")


def test_names_and_paths_of_the_source(made):
    whole, dataset = PreparedDataset.open(made), PreparedDataset.open(made, "validate")
    assert dataset.study_names == [str(number) for number in dataset.study_ids]
    assert dataset.subject_names == [str(number) for number in dataset.subject_ids]
    rows = [row for index in range(len(dataset)) for row in dataset.image_rows(index)]
    assert list(dataset.image_paths) == rows and list(whole.image_paths) == list(range(len(whole.images)))
    for index in range(len(dataset)):
        for row in dataset.image_rows(index):
            path = dataset.image_paths[row]
            assert path == whole.image_paths[row] and f"s{dataset.study_ids[index]}/" in path
            assert (made.parent / "tree" / path).is_file()


def test_a_dataset_without_the_newer_columns_opens(copy):
    newer = PreparedDataset.open(copy, "test")
    rewrite(copy, lambda table: table.drop_columns(["study", "subject", "image_paths"]))
    older = PreparedDataset.open(copy, "test", verify="full")
    assert older.image_paths is None
    assert older.study_names == [str(number) for number in older.study_ids] == newer.study_names
    assert older.subject_names == [str(number) for number in older.subject_ids]
    np.testing.assert_array_equal(older.labels, newer.labels)
    assert older.sentences(0) == newer.sentences(0)


def test_names_that_are_no_numbers(copy):
    names = pa.array([f"CXR{row}_IM-0001" for row in range(20)])
    rewrite(copy, lambda table: table.set_column(table.schema.get_field_index("study"), "study", names))
    parts = [PreparedDataset.open(copy, split) for split in ("train", "validate", "test")]
    assert [name for part in parts for name in part.study_names] == names.to_pylist()
    assert PreparedDataset.open(copy).study_ids.dtype == np.int64


def test_a_dataset_without_labels(copy):
    rewrite(copy, lambda table: table.drop_columns(list(CHEXPERT_LABELS)), labels=[])
    dataset = PreparedDataset.open(copy, "train", verify="full")
    assert dataset.classes == () and dataset.labels.shape == (len(dataset), 0) and dataset.labels.dtype == np.float32
    assert present(dataset.labels, dataset.classes, ()).shape == (len(dataset), 0)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.classes == () and again.labels.shape == dataset.labels.shape


def test_a_dataset_with_labels_of_its_own(copy):
    values = [[1.0, None, -1.0, 0.0][row % 4] for row in range(20)]

    def change(table):
        table = table.drop_columns(list(CHEXPERT_LABELS))
        return table.append_column("TB scar", pa.array(values, pa.float32()))

    rewrite(copy, change, labels=["TB scar"])
    dataset = PreparedDataset.open(copy)
    assert dataset.classes == ("TB scar",) and dataset.labels.dtype == np.float32
    np.testing.assert_array_equal(dataset.labels[:, 0], np.array([np.nan if v is None else v for v in values]))
    # Only three of CheXpert's labels are present where they are uncertain.
    assert present(dataset.labels, dataset.classes, ("TB scar",))[:, 0].tolist() == [row % 4 == 0 for row in range(20)]


def test_datasets_before_labels_were_listed_have_chexperts(copy):
    stored = json.loads((copy / "dataset.json").read_text(encoding="utf-8"))
    del stored["labels"]
    stored.pop("seal", None)
    (copy / "dataset.json").write_text(json.dumps(stored), encoding="utf-8")
    assert PreparedDataset.open(copy).classes == CHEXPERT_LABELS


def test_what_makes_a_dataset_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"it has no dataset.json; make one with `prior-fast prepare`$"):
        PreparedDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": "prior-fast-labelled", "version": 1}')
    with pytest.raises(UsageError, match=r"not 'prior-fast-dataset'; make one with `prior-fast prepare`$"):
        PreparedDataset.open(tmp_path)
