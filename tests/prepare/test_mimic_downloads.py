"""MIMIC-CXR as it is downloaded: folders above the tree, DICOM files, blank views, other spellings in the tables."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.prepare.studies.mimic_views import view_of
from prior_fast.prepare.studies.options import PrepareOptions
from prior_fast.prepare.studies.pipeline import prepare_studies
from prior_fast.prepare.studies.plan import Source
from tests.prepare.labelled.trees import raw_dicom
from tests.prepare.mimic_tree import METADATA, MimicTree, contents, mimic_options, rejected, small_tree, write_csv
from tests.prepare.studies.tables import prepare


@pytest.fixture
def tree(tmp_path) -> MimicTree:
    return small_tree(tmp_path / "tree")


@pytest.fixture
def expected(tree, tmp_path):
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "expected"))
    return contents(tmp_path / "expected")


def options(out, **arguments) -> PrepareOptions:
    return PrepareOptions(Source("mimic", {name: value and str(value) for name, value in arguments.items()}), out)


def downloaded(tree, root):
    """The folders that wget makes: images and reports in versions of two projects below physionet.org."""
    base = root / "physionet.org/files"
    for path in tree.root.rglob("*"):
        if path.is_file():
            project = "mimic-cxr/2.0.0" if path.suffix == ".txt" else "mimic-cxr-jpg/2.1.0"
            target = base / project / path.relative_to(tree.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return base


@pytest.mark.parametrize("above", ["", "mimic-cxr-jpg", "mimic-cxr-jpg/2.1.0", "mimic-cxr-jpg/2.1.0/files"])
def test_any_folder_above_the_tree_will_do(tree, expected, tmp_path, above):
    base = downloaded(tree, tmp_path / "wget")
    reports = tmp_path / "wget" if not above else base / "mimic-cxr"
    images = base / above if above else tmp_path / "wget"
    prepare_studies(options(tmp_path / "out", images=images, reports=reports))
    assert contents(tmp_path / "out") == expected


def test_the_newest_of_several_versions_is_taken(tree, expected, tmp_path):
    base = downloaded(tree, tmp_path / "wget")
    for path in (base / "mimic-cxr-jpg/2.1.0/files").rglob("*.jpg"):
        old = base / "mimic-cxr-jpg/2.0.0" / path.relative_to(base / "mimic-cxr-jpg/2.1.0")
        old.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 30)).save(old)
    prepare_studies(options(tmp_path / "out", images=tmp_path / "wget", reports=tmp_path / "wget"))
    assert contents(tmp_path / "out") == expected


def test_the_dicom_tree_with_the_tables_of_the_jpeg_tree(tree, expected, tmp_path):
    dicom, tables = tmp_path / "mimic-cxr/2.0.0", tmp_path / "mimic-cxr-jpg/2.0.0"
    tables.mkdir(parents=True)
    for path in tree.root.rglob("*"):
        target = dicom / path.relative_to(tree.root)
        if path.suffix == ".csv":
            shutil.copyfile(path, tables / path.name)
        elif path.suffix == ".jpg":
            target.parent.mkdir(parents=True, exist_ok=True)
            raw_dicom(target.with_suffix(".dcm"), np.asarray(Image.open(path)))
        elif path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    with pytest.raises(UsageError, match=r"metadata.csv \(or .csv.gz\) is neither in it.*folder with --tables"):
        prepare_studies(options(tmp_path / "out", images=dicom))
    report = prepare_studies(options(tmp_path / "out", images=dicom, tables=tables))
    made = contents(tmp_path / "out")
    assert {name for name in made if made[name] != expected[name]} == {"dataset.json", "manifest.parquet"}
    assert any("have another path or format than MIMIC-CXR-JPG's" in note for note in report["notes"])
    assert PreparedDataset.open(tmp_path / "out").image_paths[0].endswith(".dcm")


def test_images_one_folder_deeper_without_extension_or_in_capitals(tree, expected, tmp_path):
    for number, path in enumerate(sorted(tree.root.rglob("*.jpg"))):
        target = (path.with_suffix(""), path.with_suffix(".JPG"), path.parent / "jpg" / path.name)[number % 3]
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    prepare_studies(options(tmp_path / "out", images=tree.root))
    made = contents(tmp_path / "out")
    assert made["images.npy"] == expected["images.npy"]
    assert {name for name in made if made[name] != expected[name]} == {"dataset.json", "manifest.parquet"}


def test_columns_in_any_case_and_ids_with_letters(tree, expected, tmp_path):
    for path in tree.root.glob("*.csv"):
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        lines = [re.sub(r",(1\d{7}),", r",p\1,", re.sub(r"(^|,)(5\d{7}),", r"\1s\2,", line)) for line in lines]
        path.write_text("\n".join([header.upper(), *lines]) + "\n", encoding="utf-8")
    prepare_studies(options(tmp_path / "out", images=tree.root))
    assert contents(tmp_path / "out") == expected


def test_blank_views_count_by_themselves_and_can_be_taken_from_elsewhere(tree, tmp_path, capsys):
    cells = [
        ("postero-anterior", "", "PA"),
        ("", "CHEST (PORTABLE AP)", "AP"),
        ("lateral", "", None),
        ("", "CHEST (PA AND LAT)", None),
        ("", "", None),
    ]
    for number in range(len(cells)):
        tree.add(50_000_300 + number, views=("",))
    for row, (code, procedure, _) in zip(tree.metadata[-len(cells) :], cells):
        row |= {"ViewCodeSequence_CodeMeaning": code, "PerformedProcedureStepDescription": procedure}
        row["ProcedureCodeSequence_CodeMeaning"] = ""
    tree.write()
    more = ("ViewCodeSequence_CodeMeaning", "PerformedProcedureStepDescription", "ProcedureCodeSequence_CodeMeaning")
    write_csv(tree.root / "mimic-cxr-2.0.0-metadata.csv", (*METADATA, *more), tree.metadata)
    assert prepare("mimic", tmp_path / "blank", "--images", tree.root) == 0
    assert "5 image(s) have a blank ViewPosition and were left out; --view-fallback takes" in capsys.readouterr().err
    kinds = [row["reason"] for row in rejected(tmp_path / "blank")]
    assert kinds == ["no frontal view, ViewPosition is blank (ViewPosition empty)"] * 5
    assert prepare("mimic", tmp_path / "taken", "--images", tree.root, "--view-fallback") == 0
    assert "3 image(s) with a blank ViewPosition have the view of their view code" in capsys.readouterr().err
    ids = set(PreparedDataset.open(tmp_path / "taken").study_ids.tolist())
    assert {50_000_300 + number for number, cell in enumerate(cells) if cell[2]} == {i for i in ids if i >= 50_000_300}


def test_views_of_codes_and_procedures():
    assert view_of("antero-posterior", "CHEST (PA)") == "AP"
    assert view_of("left lateral") == "LATERAL"
    assert view_of(None, None, "CHEST (SINGLE VIEW)") is None
    assert view_of("", "CHEST (PA AND LAT)", "CHEST PORT. LINE PLACEMENT AP") == "AP"
    assert view_of("", "CHAPEL PAINT") is None


def test_nothing_where_it_should_be_is_said_before_the_work(tree, tmp_path):
    for path in tree.root.rglob("*.txt"):
        path.unlink()
    with pytest.raises(UsageError) as caught:
        prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))
    message = str(caught.value)
    assert re.search(r"no report is where it should be: there is no .*/s50000000.txt; .* holds s50000000", message)
    assert "--reports names the folder" in message and "out.rejected.csv names them" in message
    assert not (tmp_path / "out.partial").exists() and not (tmp_path / "out").exists()
    listed = (tmp_path / "out.rejected.csv").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 21 and listed[1].endswith("s50000000.txt,report missing")
    for path in tree.root.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(UsageError, match=r"no image file is where it should be: there is no .*\.jpg; .* holds"):
        prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))


def test_other_headers_are_said_before_the_work(tree, tmp_path):
    for path in tree.root.rglob("*.txt"):
        path.write_text(path.read_text(encoding="utf-8").replace("\n ", "\n").title(), encoding="utf-8")
    with pytest.raises(
        UsageError, match="--sections mimic finds no findings or impression in any report, such as"
    ) as caught:
        prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))
    assert "--sections tolerant finds text in 20 of them" in str(caught.value)
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out", sections="tolerant"))
    assert len(PreparedDataset.open(tmp_path / "out")) == 20
    assert not (tmp_path / "out.rejected.csv").exists()


def test_rules_that_find_little_are_named_after_the_work(tree, tmp_path):
    paths = sorted(tree.root.rglob("*.txt"))
    for path in paths[3:]:
        path.write_text("Findings: one. Two. Three. Four. Five.", encoding="utf-8")
    report = prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))
    note = "the rules --sections mimic found no findings or impression in 17 of 20 reports; try --sections tolerant"
    assert note in report["notes"]
