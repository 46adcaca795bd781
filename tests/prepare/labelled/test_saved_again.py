"""Tables of CheXpert and RSNA that pandas has read and saved again give the dataset of the original tables."""

import csv

import pytest

from tests.prepare.labelled.trees import chexpert_row, run, write_chexpert, write_csv, write_rsna

ROWS = [
    chexpert_row(
        f"CheXpert-v1.0-small/train/patient{n:05d}/study1/view1_frontal.jpg", Edema=1.0, Fracture=-1.0 * (n % 2)
    )
    for n in range(1, 12)
]
BOXES = [(f"p{n}", *((10.0, 8.0, 30.0, 40.0, 1) if n % 2 else ("", "", "", "", 0))) for n in range(12)]


def save_again(path, blank, index, whole):
    """What `DataFrame.to_csv` does: a column for the index, whole numbers as floats, other columns' order and case."""
    header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    order = [len(header) - 1 - place for place in range(len(header))]
    cells = [[whole(row[place]) or blank for place in order] for row in rows]
    write_csv(path, [index, *(header[place].upper() for place in order)], [[n, *row] for n, row in enumerate(cells)])


def as_float(cell):
    return f"{cell}.0" if cell.lstrip("-").isdigit() else cell


@pytest.mark.parametrize(("blank", "index"), [("", ""), ("NaN", "Unnamed: 0"), ("nan", "index"), ("NA", "")])
@pytest.mark.parametrize("name", ["chexpert", "rsna"])
def test_saved_again(tmp_path, name, blank, index):
    write = {"chexpert": lambda root: write_chexpert(root, ROWS), "rsna": lambda root: write_rsna(root, BOXES)}[name]
    tables = {"chexpert": ("train.csv", "valid.csv"), "rsna": ("stage_2_train_labels.csv",)}[name]
    assert run(name, write(tmp_path / "first"), tmp_path / "out-first") == 0
    root = write(tmp_path / "second")
    for table in tables:
        save_again(root / table, blank, index, as_float)
    assert run(name, root, tmp_path / "out-second") == 0
    for file in ("manifest.parquet", "images.npy", "splits/prior-0/train.txt"):
        assert (tmp_path / "out-first" / file).read_bytes() == (tmp_path / "out-second" / file).read_bytes()
