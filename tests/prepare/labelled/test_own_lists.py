"""Splits by a user's own lists."""

import pytest

from prior_fast.data.labelled_dataset import LabelledDataset
from tests.prepare.labelled.trees import info_of, run, write_rsna

IDS = [f"{letter}-{number}" for letter in "ab" for number in range(10)]


@pytest.fixture
def root(tmp_path):
    rows = [(name, *((10, 10, 20, 20, 1) if name[0] == "b" else ("", "", "", "", 0))) for name in IDS]
    return write_rsna(tmp_path / "in", rows)


@pytest.fixture
def lists(tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train.txt").write_text("".join(f"images/{name}.png\n" for name in IDS[4:]))
    (folder / "val.txt").write_text("a-1\na-0.dcm\n")
    (folder / "test.txt").write_text("a-2\r\n\r\na-3")
    return folder


def test_lists_become_a_split(root, lists, tmp_path):
    (lists / "train_10.txt").write_text("b-3\nb-4\n")
    out = tmp_path / "out"
    assert run("rsna", root, out, "--split-lists", f"mine={lists}", "--split-lists", f"other={lists}") == 0
    dataset = LabelledDataset.open(out)
    assert dataset.split_names[-2:] == ("mine", "other")
    named = {part: [dataset.image_ids[row] for row in rows] for part, rows in vars(dataset.split("mine")).items()}
    assert named == {"train": IDS[4:], "validate": ["a-1", "a-0"], "test": ["a-2", "a-3"]}
    assert [dataset.image_ids[row] for row in dataset.split("mine", 10).train] == ["b-3", "b-4"]
    (drawn,) = dataset.split("mine", 1).train
    assert dataset.labels[drawn, 0] == 1
    assert "train-1 drawn with seed 0" in info_of(out)["splits"]["mine"]["rule"]


def test_images_that_were_left_out_leave_the_lists_too(root, lists, tmp_path):
    (root / "stage_2_train_images" / "a-2.dcm").write_bytes(b"")
    (root / "stage_2_train_images" / "a-1.dcm").unlink()
    assert run("rsna", root, tmp_path / "out", "--split-lists", f"mine={lists}") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    split = dataset.split("mine")
    assert [dataset.image_ids[row] for row in (*split.validate, *split.test)] == ["a-0", "a-3"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("test.txt", "a-2\nc-9\nc-8\n", "'c-9' and 1 more"),
        ("test.txt", "a-1\n", "a-1 and 0 more are in it twice"),
        ("train_1.txt", "a-1\n", "a-1 is in train-1 but not in train"),
        ("val.txt", None, "there is no validate.txt or val.txt"),
    ],
)
def test_lists_that_cannot_be_used(root, lists, tmp_path, file, text, said, capsys):
    (lists / file).unlink(missing_ok=True)
    if text is not None:
        (lists / file).write_text(text)
    assert run("rsna", root, tmp_path / "out", "--split-lists", f"mine={lists}") == 2
    message = capsys.readouterr().err
    assert said in message and str(lists) in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lists", "give NAME=DIR"),
        ("../x=lists", "give NAME=DIR"),
        ("mine=nowhere", "there is no folder nowhere"),
        ("prior-0=.", "a split that this command draws"),
    ],
)
def test_words_that_cannot_be_used(root, tmp_path, word, said, capsys):
    assert run("rsna", root, tmp_path / "out", "--split-lists", word) == 2
    assert said in capsys.readouterr().err
