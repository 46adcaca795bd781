import csv
import json
import re

import numpy as np
import pytest

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.radiology.masks import box_mask
from tests.prepare.labelled.trees import info_of, raw_dicom, rejected, write_csv, xray
from tests.prepare.studies.tables import save_xray

COUNT = 20


@pytest.fixture
def images(tmp_path):
    for number in range(COUNT):
        save_xray(tmp_path / f"images/sub/x{number}.png", number, (100, 50))
    return tmp_path / "images"


def run(table, images, out, *words):
    arguments = ["--table", table, "--images", images, "--out", out, "--workers", 1, *words]
    return main(["prepare", "labels", *map(str, arguments)])


def test_a_column_for_each_class(tmp_path, images, capsys):
    words = ["1", "0.0", "yes", "No", "TRUE", "false", "-1", "", "NaN", "uncertain"]
    rows = [(f"x{n}", f"P{n // 2}", n % 90, words[n % 10], words[(n + 1) % 10]) for n in range(COUNT)]
    write_csv(
        tmp_path / "t.csv", ("", "Image", "Patient ID", "Age", "TB", "Scar"), [(n, *row) for n, row in enumerate(rows)]
    )
    assert run(tmp_path / "t.csv", images, tmp_path / "out") == 0
    assert "classes: TB, Scar" in capsys.readouterr().err
    dataset = LabelledDataset.open(tmp_path / "out", verify="full")
    values = [1, 0, 1, 0, 1, 0, -1, np.nan, np.nan, -1]
    assert dataset.classes == ("TB", "Scar") and dataset.image_ids[3] == "x3"
    np.testing.assert_array_equal(dataset.labels[:, 0], values * 2)
    np.testing.assert_array_equal(dataset.labels[:, 1], np.roll(values * 2, -1))
    assert dataset.patient_ids[3] == "P1" and dataset.split_names[0] == "prior-0"
    assert not dataset.has_boxes and not dataset.has_masks


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_column_that_lists_classes(tmp_path, images, form):
    lists = [["TB", "Scar"], ["No Finding"], [], ["Scar"]]
    rows = [{"path": f"x{n}.png", "Finding Labels": lists[n % 4]} for n in range(COUNT)]
    path = tmp_path / f"t.{form}"
    if form == "csv":
        write_csv(path, ("path", "Finding Labels"), [(row["path"], "|".join(row["Finding Labels"])) for row in rows])
    else:
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert run(path, images, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    assert dataset.classes == ("Scar", "TB")
    np.testing.assert_array_equal(dataset.labels, [[1, 1], [0, 0], [0, 0], [1, 0]] * (COUNT // 4))


def test_the_own_split_and_a_validation_part_that_it_lacks(tmp_path, images):
    parts = [("Training", "TEST")[n % 4 == 0] for n in range(COUNT)]
    rows = [(f"x{n}.png", n % 2, f"P{n // 2}", parts[n]) for n in range(COUNT)]
    write_csv(tmp_path / "t.csv", ("image", "TB", "patient", "split"), rows)
    assert run(tmp_path / "t.csv", images, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    assert dataset.split_names[0] == "own"
    split = dataset.split("own")
    assert [dataset.image_ids[row] for row in split.test] == [f"x{n}.png" for n in range(0, COUNT, 4)]
    assert len(split.validate) >= 2 and len(split.train) + len(split.validate) == 15
    assert not {dataset.patient_ids[row] for row in split.train} & {dataset.patient_ids[row] for row in split.validate}
    assert "10 % of the training images" in dataset.info["splits"]["own"]["rule"]
    write_csv(
        tmp_path / "u.csv",
        ("image", "TB", "split"),
        [(f"x{n}", 1, ("train", "val", "test")[n % 3]) for n in range(COUNT)],
    )
    assert run(tmp_path / "u.csv", images, tmp_path / "second") == 0
    whole = LabelledDataset.open(tmp_path / "second").split("own")
    assert [part.tolist() for part in (whole.train, whole.validate, whole.test)] == [
        list(range(begin, COUNT, 3)) for begin in range(3)
    ]


@pytest.mark.parametrize("corners", [False, True])
def test_boxes_of_one_class(tmp_path, images, corners):
    boxes = {0: [(10, 5, 30, 20), (60, 10, 20, 25)], 2: [(90, 40, 30, 30)], 4: [(200, 0, 10, 10)]}
    rows = []
    for number in range(COUNT):
        for x, y, width, height in boxes.get(number, [("", "", "", "")]):
            box = (x, y, x + width, y + height) if corners and width else (x, y, width, height)
            rows.append((f"x{number}.png", *box, int(number in boxes)))
    names = ("x_min", "y_min", "x_max", "y_max") if corners else ("x", "y", "width", "height")
    write_csv(tmp_path / "t.csv", ("image", *names, "Opacity"), rows)
    assert run(tmp_path / "t.csv", images, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    assert dataset.classes == ("Opacity",) and dataset.has_boxes and dataset.has_masks
    across, down = 224 / 100, 224 / 50
    expected = [[x * across, y * down, w * across, h * down] for x, y, w, h in boxes[0]]
    np.testing.assert_allclose(dataset.boxes(0), expected, rtol=1e-6)
    np.testing.assert_allclose(dataset.boxes(2), [[90 * across, 40 * down, 10 * across, 10 * down]], rtol=1e-6)
    np.testing.assert_array_equal(dataset.mask(0), np.logical_or.reduce([box_mask(*box) for box in expected]))
    assert len(dataset.boxes(4)) == 0 and dataset.labels[4, 0] == 1
    assert rejected(tmp_path / "out") == [("sub/x4.png", "box 200 0 10 10 is empty or outside 100 x 50")]


def test_boxes_of_several_classes(tmp_path, images):
    rows = [
        ("x0.png", 10, 10, 20, 20, "Mass"),
        ("x0.png", 50, 10, 20, 20, "Nodule"),
        ("x1.png", "", "", "", "", "No finding"),
    ]
    rows += [(f"x{n}.png", "", "", "", "", "Mass") for n in range(2, COUNT)]
    write_csv(tmp_path / "t.csv", ("image_id", "x", "y", "width", "height", "class_name"), rows)
    assert run(tmp_path / "t.csv", images, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    assert dataset.classes == ("Mass", "Nodule") and dataset.has_boxes and not dataset.has_masks
    assert dataset.box_classes(0).tolist() == [0, 1] and dataset.labels[:3].tolist() == [[1, 1], [0, 0], [1, 0]]
    words = [
        "evaluate",
        "detection",
        "--checkpoint",
        "none",
        "--data",
        str(tmp_path / "out"),
        "--out",
        str(tmp_path / "d"),
    ]
    assert main(words) == 2


def test_what_is_left_out_is_named(tmp_path, images):
    raw_dicom(images / "d.dcm", xray(3))
    (images / "broken.png").write_bytes(b"no image")
    rows = [("x0.png", 1), ("x0.png", 0), ("none.png", 1), ("broken.png", 1), ("", 1), ("d", 1)]
    write_csv(tmp_path / "t.csv", ("image", "TB"), [*rows, *((f"x{n}.png", n % 2) for n in range(1, COUNT))])
    assert run(tmp_path / "t.csv", images, tmp_path / "out") == 0
    found = dict(rejected(tmp_path / "out"))
    assert found["x0.png"] == "its rows have different labels for TB"
    assert found["none.png"].startswith("image missing: there is no none.png")
    assert found["broken.png"] == "no image in a known format"
    assert found[f"{tmp_path / 't.csv'}, line 6"] == "image is blank"
    assert "d" in LabelledDataset.open(tmp_path / "out").image_ids
    assert info_of(tmp_path / "out")["images"] == COUNT
    assert run(tmp_path / "t.csv", images, tmp_path / "strict", "--strict") == 1


@pytest.mark.parametrize(
    ("header", "cell", "words", "message"),
    [
        (("image", "TB"), "2", ("--classes", "TB"), "line 2: 'TB' is '2', not a label: 1, 0, -1, blank"),
        (("image", "TB"), "1", ("--classes", "TBC"), "--classes TBC: .* has no such column: did you mean 'TB'"),
        (("image", "note"), "tall", (), r"no column has labels .* the table has image, note"),
        (("scan", "TB"), "1", (), "no column has a usual name for --image"),
        (("image", "TB"), "1", ("--box", "a,b"), "--box a,b: give four columns"),
    ],
)
def test_tables_that_can_not_be_used(tmp_path, images, capsys, header, cell, words, message):
    write_csv(tmp_path / "t.csv", header, [(f"x{n}.png", cell) for n in range(COUNT)])
    assert run(tmp_path / "t.csv", images, tmp_path / "out", *words) == 2
    assert re.search(message, capsys.readouterr().err)


def test_no_image_in_the_folder_is_said_before_the_work(tmp_path, images, capsys):
    write_csv(tmp_path / "t.csv", ("image", "TB"), [("a/b.png", 1)])
    assert run(tmp_path / "t.csv", images, tmp_path / "out") == 2
    shown = capsys.readouterr().err
    assert f"no image of the table can be used: there is no {images}/a/b.png; {images} holds sub" in shown
    for number in range(COUNT):
        (images / f"sub/x{number}.png").write_bytes(b"")
    write_csv(tmp_path / "t.csv", ("image", "TB"), [(f"x{n}.png", 1) for n in range(COUNT)])
    assert run(tmp_path / "t.csv", images, tmp_path / "out") == 2
    assert "the file is empty (20), such as sub/x0.png" in capsys.readouterr().err
    with (tmp_path / "out.rejected.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == COUNT + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.rejected.csv", "t.csv"]
