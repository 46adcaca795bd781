import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.prepare.studies import pipeline
from prior_fast.prepare.studies.builder import split_of
from tests.prepare.labelled.trees import raw_dicom, xray
from tests.prepare.studies.tables import prepare, rejected, save_xray, text, write_table

COUNT = 24


@pytest.fixture
def images(tmp_path):
    for number in range(COUNT):
        save_xray(tmp_path / f"images/x{number}.png", number)
    return tmp_path / "images"


def rows(*more):
    return [(f"x{number}.png", text(number), *(cells[number] for cells in more)) for number in range(COUNT)]


def test_paths_and_texts_alone_are_enough(tmp_path, images, capsys):
    table = write_table(tmp_path / "t.csv", ("image", "report"), rows())
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images) == 0
    shown = capsys.readouterr()
    assert "no column names the study: each row is a study of its own" in shown.err
    assert "studies have no split of their own: about 80 % of the subjects" in shown.err
    dataset = PreparedDataset.open(tmp_path / "out", verify="full")
    assert len(dataset) == COUNT
    assert dataset.labels.shape == (COUNT, 0) and dataset.classes == ()
    for index, name in enumerate(dataset.study_names):
        number = int(name.removeprefix("x").removesuffix(".png"))
        assert " ".join(dataset.sentences(index)) == text(number)
        pixels = np.asarray(Image.open(images / name).resize((224, 224), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(dataset.image(dataset.image_rows(index)[0]), pixels)
    splits = {name: split for split in ("train", "validate", "test") for name in names(tmp_path / "out", split)}
    assert splits == {name: split_of(name) for name in dataset.study_names}
    assert (tmp_path / "out/preview.png").is_file()


def names(out, split):
    info = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    return PreparedDataset.open(out, split).study_names if info["splits"][split]["studies"] else []


def test_shares_of_the_hash_and_a_fixed_point():
    splits = [split_of(f"subject {number}") for number in range(20_000)]
    shares = [splits.count(name) / len(splits) for name in ("train", "validate", "test")]
    assert np.allclose(shares, (0.8, 0.1, 0.1), atol=0.01)
    # SHA-256 of "P1" begins with 0xfb, of "P2" with a byte below 0xcc, of "P7" with 0xda: shares 0.98, below 0.8, 0.85.
    assert [split_of(name) for name in ("P1", "P2", "P7")] == ["test", "train", "validate"]


def test_columns_for_everything(tmp_path, images):
    study = [f"S{number // 2}" for number in range(COUNT)]
    subject = [f"P{number // 4}" for number in range(COUNT)]
    split = [("Train", "valid", "TEST")[number // 4 % 3] for number in range(COUNT)]
    view = [("PA", "LATERAL")[number % 2] for number in range(COUNT)]
    table = write_table(
        tmp_path / "t.tsv",
        ("IMAGE_PATH", "Report Text", "Study ID", "PatientID", "Fold", "ViewPosition"),
        [(f"x{n}.png", text(n // 2), study[n], subject[n], split[n], view[n]) for n in range(COUNT)],
    )
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    assert sorted(dataset.study_names) == sorted(set(study))
    assert len(dataset.images) == COUNT // 2
    assert {reason for _, _, reason in rejected(tmp_path / "out/rejected.csv")} == {"not a frontal view (LATERAL)"}
    train = PreparedDataset.open(tmp_path / "out", "train")
    assert sorted(set(train.subject_names)) == ["P0", "P3"]


def test_named_columns_and_a_list_of_images(tmp_path, images):
    cells = ["x0.png;x1.png", "['x2.png', 'x3.png']", '["x4.png"]', "x5.png, x6.png"]
    table = write_table(tmp_path / "t.csv", ("files", "words", "id"), [(c, text(n), n) for n, c in enumerate(cells)])
    words = ("--table", table, "--images", images, "--image", "files", "--report", "WORDS", "--study", "id")
    assert prepare("table", tmp_path / "out", *words) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    assert {name: len(dataset.image_rows(i)) for i, name in enumerate(dataset.study_names)} == {
        "0": 2,
        "1": 2,
        "2": 1,
        "3": 2,
    }
    assert dataset.study_ids.tolist() != [] and set(dataset.study_ids.tolist()) == {0, 1, 2, 3}


def test_parquet_and_json_lines_give_the_dataset_of_the_csv(tmp_path, images):
    records = [{"image": name, "report": report} for name, report in rows()]
    write_table(tmp_path / "t.csv", ("image", "report"), rows())
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    made = []
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        assert prepare("table", tmp_path / f"out-{name}", "--table", tmp_path / name, "--images", images) == 0
        made.append([(tmp_path / f"out-{name}" / file).read_bytes() for file in ("images.npy", "manifest.parquet")])
    assert made[0] == made[1] == made[2]


def test_reports_in_files(tmp_path, images):
    for number in range(COUNT):
        path = tmp_path / f"reports/r{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"FINDINGS:\r\n{text(number)} Café.\r\n".encode("latin-1"))
    table = write_table(tmp_path / "t.csv", ("image", "report"), [(f"x{n}.png", f"r{n}.txt") for n in range(COUNT)])
    words = ("--table", table, "--images", images, "--reports", tmp_path / "reports")
    assert prepare("table", tmp_path / "out", *words) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    index = dataset.study_names.index("x3.png")
    assert " ".join(dataset.sentences(index)) == f"{text(3)} Café."
    notes = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["notes"]
    assert f"{COUNT} report(s) are not UTF-8 and were read in another encoding, cp1252 unless marked" in notes
    # Beside the table, and below the images, without --reports.
    shutil.copytree(tmp_path / "reports", tmp_path / "images/texts")
    beside = write_table(
        tmp_path / "reports/t.csv", ("image", "report"), [(f"x{n}.png", f"r{n}.txt") for n in range(COUNT)]
    )
    for place, own in (("below", table), ("beside", beside)):
        assert prepare("table", tmp_path / place, "--table", own, "--images", images) == 0
        assert PreparedDataset.open(tmp_path / place).sentences(index) == dataset.sentences(index)


def test_findings_and_impression_in_columns(tmp_path, images):
    cells = [(f"x{n}.png", text(n, 2), "Stable." if n % 2 else "", "HISTORY: cough") for n in range(COUNT)]
    table = write_table(tmp_path / "t.csv", ("image", "Findings", "Impression", "report"), cells)
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    for index, name in enumerate(dataset.study_names):
        number = int(name[1:-4])
        assert " ".join(dataset.sentences(index)) == text(number, 2) + (" Stable." if number % 2 else "")


def test_labels(tmp_path, images):
    diagnoses = [("TB|Scar", "", "None", "['Scar']")[number % 4] for number in range(COUNT)]
    edema = [("1.0", "", "-1", "no")[number % 4] for number in range(COUNT)]
    table = write_table(tmp_path / "t.csv", ("image", "report", "diagnosis", "Edema"), rows(diagnoses, edema))
    words = ("--table", table, "--images", images)
    assert prepare("table", tmp_path / "one", *words, "--labels", "diagnosis") == 0
    dataset = PreparedDataset.open(tmp_path / "one")
    assert dataset.classes == ("None", "Scar", "TB")
    of = {"TB|Scar": (0, 1, 1), "": (np.nan,) * 3, "None": (1, 0, 0), "['Scar']": (0, 1, 0)}
    expected = [of[diagnoses[int(name[1:-4])]] for name in dataset.study_names]
    np.testing.assert_array_equal(dataset.labels, expected)
    assert prepare("table", tmp_path / "two", *words) == 0
    dataset = PreparedDataset.open(tmp_path / "two")
    assert dataset.classes == ("Edema",)
    expected = [(1, np.nan, -1, 0)[int(name[1:-4]) % 4] for name in dataset.study_names]
    np.testing.assert_array_equal(dataset.labels[:, 0], expected)


def test_a_cell_that_is_no_label_is_refused(tmp_path, images, capsys):
    table = write_table(tmp_path / "t.csv", ("image", "report", "Edema", "Nodule"), rows(["1"] * COUNT, ["2"] * COUNT))
    words = ("--table", table, "--images", images, "--labels", "Edema,Nodule")
    assert prepare("table", tmp_path / "out", *words) == 2
    assert "t.csv, line 2: 'Nodule' is '2', not a label" in capsys.readouterr().err


def test_what_contradicts_or_lacks_is_left_out_and_named(tmp_path, images, capsys):
    cells = [
        ("x0.png", text(0), "A", "P1", "train"),
        ("x1.png", text(1), "A", "P1", "train"),  # another report
        ("x2.png", text(2), "B", "P2", "train"),
        ("x3.png", text(2), "B", "P3", "train"),  # another subject
        ("x4.png", "", "C", "P4", "train"),
        ("none.png", text(5), "D", "P5", "train"),
        ("", text(6), "E", "P6", "train"),
        ("x7.png", text(7), "F", "P7", "holdout"),
        ("x8.png", text(8), "G", "P8", "train"),
        ("none2.png", text(8), "G", "P8", "train"),
        *((f"x{n}.png", text(n), f"H{n}", f"Q{n}", "train") for n in range(9, COUNT)),
    ]
    table = write_table(tmp_path / "t.csv", ("image", "report", "study", "subject", "split"), cells)
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images) == 0
    reasons = {study: reason for study, _, reason in rejected(tmp_path / "out/rejected.csv")}
    assert reasons == {
        "A": "contradicting rows (its rows have different reports)",
        "B": "contradicting rows (its rows have different subjects or splits)",
        "C": "no report",
        "D": "image missing (there is no none.png, nor a file of this name in another folder or format)",
        "E": "image is blank",
        "F": "unknown split ('holdout', not one of train, validate, test or a usual name of them)",
        "G": "image missing (there is no none2.png, nor a file of this name in another folder or format)",
    }
    dataset = PreparedDataset.open(tmp_path / "out")
    assert set(dataset.study_names) == {"G", *(f"H{n}" for n in range(9, COUNT))}
    assert prepare("table", tmp_path / "strict", "--table", table, "--images", images, "--strict") == 1
    assert "--strict: study D, none.png: image missing (there is no none.png" in capsys.readouterr().err


def test_the_dry_run_shows_what_it_understood_and_writes_nothing(tmp_path, images, capsys):
    table = write_table(
        tmp_path / "t.csv", ("image", "report"), [("x0", "FINDINGS: Clear. IMPRESSION: Normal."), *rows()[1:]]
    )
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images, "--check", 2) == 0
    shown = capsys.readouterr().out
    for words in ("column image", "column report", "PNG, 8 bits, 48 x 40", "Clear.", "24 studies could be prepared"):
        assert words in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "t.csv"]


def test_shards_and_merge_give_the_same_bytes(tmp_path, images):
    table = write_table(tmp_path / "t.csv", ("image", "report"), rows())
    words = ("--table", table, "--images", images)
    assert prepare("table", tmp_path / "whole", *words) == 0
    for shard in ("1/2", "2/2"):
        assert prepare("table", tmp_path / "parts", *words, "--shard", shard) == 0
    assert main(["prepare", "merge", "--out", str(tmp_path / "parts")]) == 0
    one, other = (
        {
            path.name: path.read_bytes()
            for path in (tmp_path / name).iterdir()
            if path.is_file() and path.name != "report.json"
        }
        for name in ("whole", "parts")
    )
    assert one == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root / "images"), r"--images .*images: there is no such folder"),
        (lambda root: (root / "t.csv").unlink(), r"--table .*t.csv: there is no such file"),
        (
            lambda root: [path.rename(path.with_name(f"y{path.name}")) for path in (root / "images").iterdir()],
            r"image missing \(24\): there is no .*/x0.png; .*images holds yx0.png, .* and 20 more; .*rejected.csv",
        ),
    ],
)
def test_what_can_not_be_used_ends_with_one_line(tmp_path, images, capsys, change, message):
    table = write_table(tmp_path / "t.csv", ("image", "report"), rows())
    change(tmp_path)
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown) and shown.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_folder_of_images_for_each_study_and_reports_by_name(tmp_path):
    rows = []
    for number in range(12):
        for place in range(1 + number % 2):
            folder = tmp_path / f"images/E{number}"
            folder.mkdir(parents=True, exist_ok=True)
            raw_dicom(folder / f"{place}", xray(number))
        (folder / "notes.csv").write_text("no image", encoding="utf-8")
        path = tmp_path / f"reports/exam-{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text(number), encoding="utf-8")
        rows.append((f"E{number}", f"exam-{number}"))
    (tmp_path / "images/E90").mkdir()
    table = write_table(tmp_path / "t.csv", ("image", "report"), [*rows, ("E90", "exam-0")])
    words = ("--table", table, "--images", tmp_path / "images", "--reports", tmp_path / "reports")
    assert prepare("table", tmp_path / "out", *words) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    assert len(dataset) == 12 and len(dataset.images) == 18
    assert " ".join(dataset.sentences(dataset.study_names.index("E5"))) == text(5)
    ((study, _, reason),) = rejected(tmp_path / "out/rejected.csv")
    assert study == "E90" and "is a folder without a file that ends in .jpg" in reason


def test_columns_that_only_look_like_it_are_not_taken(tmp_path, images, capsys):
    """A column of folds is no split, and findings beside a report are labels."""
    folds, findings = [n % 5 for n in range(COUNT)], ["TB|Scar"] * COUNT
    table = write_table(tmp_path / "t.csv", ("image", "report", "fold", "findings"), rows(folds, findings))
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images) == 0
    assert "column fold names no split (train, validate, test) and was not used" in capsys.readouterr().err
    dataset = PreparedDataset.open(tmp_path / "out")
    assert len(dataset) == COUNT and "TB|Scar" not in dataset.sentences(0)
    assert prepare("table", tmp_path / "named", "--table", table, "--images", images, "--split", "fold") == 2
    assert "unknown split (24), such as t.csv ('0', not" in capsys.readouterr().err


def test_a_label_can_not_have_the_name_of_another_column(tmp_path, images, capsys):
    table = write_table(tmp_path / "t.csv", ("image", "report", "sentences"), rows([1] * COUNT))
    words = ("--table", table, "--images", images, "--labels", "sentences")
    assert prepare("table", tmp_path / "out", *words) == 2
    assert "a label can't be named 'sentences'" in capsys.readouterr().err


def test_a_changed_text_is_not_mixed_with_what_an_earlier_run_left(tmp_path, images, monkeypatch):
    table = write_table(tmp_path / "t.csv", ("image", "report"), rows())
    words = ("--table", table, "--images", images)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "make_dataset", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert prepare("table", tmp_path / "out", *words) == 130
    assert list((tmp_path / "out.partial").glob("chunk-*.bin"))
    write_table(tmp_path / "t.csv", ("image", "report"), [(name, f"Changed. {report}") for name, report in rows()])
    assert prepare("table", tmp_path / "out", *words) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    assert all(dataset.sentences(index)[0] == "Changed." for index in range(COUNT))


def test_other_labels_are_another_dataset(tmp_path, images, capsys):
    """A dataset that is there already is not taken for one with the labels of another column."""
    table = write_table(tmp_path / "t.csv", ("image", "report", "a", "b"), rows([1] * COUNT, [0] * COUNT))
    words = ("--table", table, "--images", images, "--labels")
    assert prepare("table", tmp_path / "out", *words, "a") == 0
    assert prepare("table", tmp_path / "out", *words, "a") == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert prepare("table", tmp_path / "out", *words, "b") == 2
    assert "prepared from other inputs or with other options" in capsys.readouterr().err


def test_rules_that_find_nothing_in_the_texts_of_a_table(tmp_path, images, capsys):
    table = write_table(tmp_path / "t.csv", ("image", "report"), rows())
    words = ("--table", table, "--images", images, "--sections", "mimic")
    assert prepare("table", tmp_path / "out", *words) == 2
    shown = capsys.readouterr().err
    assert "in any report, such as that of x" in shown and "in t.csv; --sections tolerant finds text in 24" in shown


def test_a_dry_run_on_files_that_pillow_does_not_open(tmp_path, capsys):
    raw_dicom(tmp_path / "images/a.dcm", xray(1))
    bare = (tmp_path / "images/a.dcm").read_bytes()[132:]
    (tmp_path / "images/a.dcm").write_bytes(bare)
    table = write_table(tmp_path / "t.csv", ("image", "report"), [("a.dcm", text(1))])
    assert prepare("table", tmp_path / "out", "--table", table, "--images", tmp_path / "images", "--check", 1) == 0
    assert "a.dcm: 48 x 40" in capsys.readouterr().out


def test_views_may_have_dots_and_dashes_and_unknown_ones_are_named_where_they_are_many(tmp_path, images, capsys):
    view = ["P.A.", "a-p", "Postero-Anterior", "AP supino", "LATERAL", "frontal"] * (COUNT // 6)
    table = write_table(tmp_path / "t.csv", ("image", "report", "view"), rows(view))
    assert prepare("table", tmp_path / "out", "--table", table, "--images", images) == 0
    assert len(PreparedDataset.open(tmp_path / "out").images) == COUNT // 6 * 4
    note = f"images left out because their view is none of AP, PA and frontal: 'AP supino' {COUNT // 6}"
    assert note in " ".join(capsys.readouterr().err.split())
    # Lateral views are known, and a few unknown ones are in rejected.csv alone.
    few = ["LATERAL", "oblique", *["PA"] * (COUNT - 2)]
    table = write_table(tmp_path / "few.csv", ("image", "report", "view"), rows(few))
    assert prepare("table", tmp_path / "few", "--table", table, "--images", images) == 0
    assert "their view" not in capsys.readouterr().err
