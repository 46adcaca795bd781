"""Tables that somebody else wrote: their paths stay in the folder, and their ids and cells do no harm."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.prepare.labelled import chunks as labelled_chunks
from prior_fast.prepare.paths import OUTSIDE
from prior_fast.prepare.studies import chunks as study_chunks
from tests.prepare.labelled import trees
from tests.prepare.mimic_tree import mimic_options, small_tree
from tests.prepare.studies.tables import rejected, save_xray, text

COUNT = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images, and files beside their folder that no table may reach."""
    for number in range(COUNT):
        save_xray(tmp_path / f"images/x{number}.png", number)
    save_xray(tmp_path / "secret.png", 99)
    (tmp_path / "secret.txt").write_text(text(0), encoding="utf-8")
    return tmp_path


def prepare(layout: str, root: Path, **change: Any) -> int:
    """Prepare a table whose fourth row is changed."""
    rows = [{"image": f"x{n}.png", "report": text(n), "study": f"s{n}", "subject": f"p{n}"} for n in range(COUNT)]
    split = ["train"] * 8 + ["validate"] * 2 + ["test"] * 2
    rows = [{**row, "split": part} for row, part in zip(rows, split)]
    rows[3] |= change
    if layout == "labels":
        rows = [{**row, "Edema": number % 2} for number, row in enumerate(rows)]
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["--table", root / "t.jsonl", "--images", root / "images", "--out", root / "out", "--workers", "1"]
    return main(["prepare", layout, *map(str, words)])


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "{root}/secret.png", "..\\secret.png", "../../../etc/passwd"]
)
def test_images_outside_are_not_opened(root, monkeypatch, name):
    name = name.format(root=root)
    opened = []
    for module in (study_chunks, labelled_chunks):
        real = module.irregular
        monkeypatch.setattr(module, "irregular", lambda path, real=real: opened.append(path) or real(path))
    assert prepare("table", root, image=name) == 0
    assert rejected(root / "out/rejected.csv") == [("s3", name, OUTSIDE)]
    (root / "out").rename(root / "first")
    assert prepare("labels", root, image=name) == 0
    assert trees.rejected(root / "out") == [(name, OUTSIDE)]
    assert len(opened) == 2 * (COUNT - 1)
    assert all(path.is_relative_to(root / "images") and ".." not in path.parts for path in opened)


@pytest.mark.parametrize("name", ["../secret.txt", "a/../../../secret.txt", "/etc/hostname.txt"])
def test_reports_outside_are_not_opened(root, name):
    """Reports may be beside the table, too, which is in the folder `root` here."""
    assert prepare("table", root, report=name) == 0
    assert rejected(root / "out/rejected.csv") == [("s3", name, OUTSIDE)]


@pytest.mark.parametrize("name", ["secret.txt", "{root}/secret.txt"])
def test_reports_beside_the_table_are_read(root, name):
    assert prepare("table", root, report=name.format(root=root)) == 0
    dataset = PreparedDataset.open(root / "out")
    assert " ".join(dataset.sentences(dataset.study_names.index("s3"))) == text(0)


def test_links_in_the_folder_are_the_users_own(root):
    (root / "images/x3.png").unlink()
    (root / "images/x3.png").symlink_to(root / "secret.png")
    (root / "images/linked").symlink_to(root)
    assert prepare("table", root, image=["x3.png", "linked/secret.png"]) == 0
    assert PreparedDataset.open(root / "out").info["images"] == COUNT + 1
    assert rejected(root / "out/rejected.csv") == []


@pytest.mark.parametrize("layout", ["table", "labels"])
@pytest.mark.parametrize("name", ["a\nb", "s" * 10_000, "a\x85b"])
def test_ids_that_can_not_be_used(root, layout, name):
    assert prepare(layout, root, study=name, subject=name, image="x3.png") == 0
    rows = rejected(root / "out/rejected.csv") if layout == "table" else trees.rejected(root / "out")
    if layout == "table":
        assert len(rows) == 1 and "its name can't be used" in rows[0][-1]
        assert len(PreparedDataset.open(root / "out")) == COUNT - 1
    else:
        assert len(rows) == 1 and rows[0][0] == "x3.png" and "its name can't be used" in rows[0][1]
        assert len(LabelledDataset.open(root / "out")) == COUNT - 1


def test_ids_with_slashes_make_no_file(root):
    assert prepare("table", root, study="../../x/y", subject="/z") == 0
    assert "../../x/y" in PreparedDataset.open(root / "out").study_names
    assert {path.name for path in root.iterdir()} == {"images", "out", "secret.png", "secret.txt", "t.jsonl"}


def test_rejections_are_no_formulas(root):
    assert prepare("table", root, study="=HYPERLINK(1)", image="@none.png") == 0
    assert [row[:2] for row in rejected(root / "out/rejected.csv")] == [("'=HYPERLINK(1)", "'@none.png")]
    (root / "out").rename(root / "first")
    assert prepare("labels", root, image="-none.png") == 0
    assert [row[0] for row in trees.rejected(root / "out")] == ["'-none.png"]


@pytest.mark.parametrize("layout", ["table", "labels"])
@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("study", "subject", "image") for value in (float("inf"), float("nan"), 10**30)),
        *({"split": value} for value in (10**400, [], {"a": 1}, True)),
        *({"image": value} for value in ([], {"a": 1}, ["x1.png", "../x.png"], "x" * 300, "x" * 5000)),
    ],
    ids=lambda change: "-".join(f"{name}={str(value)[:12]}" for name, value in change.items()),
)
def test_cells_of_any_kind(root, layout, change, capsys):
    code = prepare(layout, root, **change)
    assert code in (0, 2)
    assert (root / "out/dataset.json").is_file() == (code == 0)
    assert sum("prior-fast: " in line for line in capsys.readouterr().err.splitlines()) == (code == 2)


def test_pipes_and_devices_are_not_opened(root, capsys):
    os.mkfifo(root / "images/pipe.png")
    os.mkfifo(root / "images/pipe.txt")
    assert prepare("table", root, report="pipe.txt") == 0
    assert rejected(root / "out/rejected.csv") == [
        ("s3", "pipe.txt", "report not readable (it is a pipe, a socket or a device, no file)")
    ]
    (root / "out").rename(root / "first")
    assert prepare("labels", root, image="pipe.png") == 0
    assert "image missing" in trees.rejected(root / "out")[0][1]
    os.mkfifo(root / "pipe.csv")
    os.mkfifo(root / "images/train.csv")
    for layout, table in (("table", "--table"), ("labels", "--table")):
        words = [table, str(root / "pipe.csv"), "--images", str(root / "images"), "--out", str(root / "none")]
        assert main(["prepare", layout, *words]) == 2
    assert main(["prepare", "chexpert", "--images", str(root / "images"), "--out", str(root / "none")]) == 2
    assert "there is no train.csv in it" in capsys.readouterr().err


def test_mimic_with_ids_and_masks_that_lead_outside(tmp_path):
    from prior_fast.prepare.studies.pipeline import prepare_studies

    tree = small_tree(tmp_path / "tree")
    save_xray(tmp_path / "secret.jpg", 1)
    save_xray(tmp_path / "secret.png", 1)
    (marked,) = tree.add(50_000_103, split="validate")
    box = {"finding": "Edema", "side": "", "severity": "", "x": 1, "y": 1, "width": 9, "height": 9}
    for mask in ("../secret.png", str(tmp_path / "secret.png"), ""):
        tree.annotations.append({"dicom_id": marked.stem, **box, "mask": mask})
    tree.add(50_000_104)
    for rows in (tree.metadata, tree.split):
        rows[-1]["dicom_id"] = "../../../../../secret"
    tree.write()
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))
    rows = [row for row in rejected(tmp_path / "out/rejected.csv") if row[2] == OUTSIDE]
    assert sorted(file.rsplit("/", 1)[-1] for _, file, _ in rows) == ["secret.jpg", "secret.png", "secret.png"]
    dataset = PreparedDataset.open(tmp_path / "out")
    assert 50_000_104 not in dataset.study_ids and 50_000_103 in dataset.study_ids


def test_an_id_that_is_no_64_bit_number(tmp_path, capsys):
    tree = small_tree(tmp_path / "tree")
    for number in ("9" * 19, "9" * 5000):
        tree.metadata[0]["subject_id"] = number
        tree.write()
        assert main(["prepare", "mimic", "--images", str(tree.root), "--out", str(tmp_path / "out")]) == 2
        assert "of up to 18 digits" in capsys.readouterr().err


def test_chexpert_with_paths_that_lead_outside(tmp_path):
    rows = [trees.chexpert_row(f"CheXpert-v1.0-small/train/patient{n:05d}/study1/v.jpg", Edema=n % 2) for n in range(9)]
    root = trees.write_chexpert(tmp_path / "in", rows)
    save_xray(tmp_path / "secret.jpg", 1)
    rows.append(trees.chexpert_row("CheXpert-v1.0-small/train/patient00001/../../../secret.jpg"))
    trees.write_csv(root / "train.csv", trees.CHEXPERT_HEADER, rows)
    assert trees.run("chexpert", root, tmp_path / "out") == 0
    assert trees.rejected(tmp_path / "out") == [("train/patient00001/../../../secret.jpg", OUTSIDE)]
