import csv
import functools
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import RunError
from prior_fast.prepare.studies import chunks, pipeline
from prior_fast.prepare.studies.pipeline import prepare_studies
from prior_fast.radiology.labels import CHEXPERT_LABELS
from tests.prepare.mimic_tree import contents, mimic_options, rejected


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(pipeline, "make_tasks", functools.partial(chunks.make_tasks, size=4))


@pytest.fixture(scope="module")
def real(real_cxr, tmp_path_factory):
    """The real bundle, prepared once."""
    out = tmp_path_factory.mktemp("real") / "prepared"
    prepare_studies(mimic_options(images=real_cxr, out=out))
    return out


def test_real_bundle_counts(real, real_cxr):
    expected = json.loads((real_cxr / "expected.json").read_text(encoding="utf-8"))
    info = json.loads((real / "dataset.json").read_text(encoding="utf-8"))
    assert (info["studies"], info["images"]) == (expected["usable_studies"], expected["usable_frontal_images"])
    for split, counts in expected["per_split"].items():
        assert info["splits"][split]["studies"] == counts["usable_studies"], split
        assert info["splits"][split]["images"] == counts["usable_frontal_images"], split
    usable = [row for row in expected["per_study"] if row["frontal_images"] and row["sentences"] >= 4]
    order = {"train": 0, "validate": 1, "test": 2}
    usable.sort(key=lambda row: (order[row["split"]], row["study_id"]))
    dataset = PreparedDataset.open(real, verify="full")
    assert dataset.study_ids.tolist() == [row["study_id"] for row in usable]
    assert dataset.subject_ids.tolist() == [row["subject_id"] for row in usable]
    assert dataset.sentence_counts.tolist() == [row["sentences"] for row in usable]
    assert [len(dataset.image_rows(i)) for i in range(len(dataset))] == [row["frontal_images"] for row in usable]


def test_every_study_of_the_real_bundle_is_kept_or_named(real, real_cxr):
    expected = json.loads((real_cxr / "expected.json").read_text(encoding="utf-8"))["per_study"]
    kept = set(PreparedDataset.open(real).study_ids.tolist())
    named = {int(row["study"]) for row in rejected(real)}
    assert kept | named == {row["study_id"] for row in expected}
    images = [row for row in rejected(real) if row["file"].endswith(".jpg")]
    left_out = sum(row["images"] - row["frontal_images"] for row in expected if row["study_id"] in kept)
    assert len(images) == left_out == 12
    assert all((real_cxr / row["file"]).exists() for row in rejected(real))


def test_pixels_labels_and_tokens_of_the_real_bundle(real, real_cxr):
    dataset = PreparedDataset.open(real)
    manifest = pq.read_table(real / "manifest.parquet").to_pylist()
    with (real_cxr / "mimic-cxr-2.0.0-chexpert.csv").open(encoding="utf-8") as file:
        labels = {int(row["study_id"]): row for row in csv.DictReader(file)}
    tokenizer = dataset.tokenizer()
    for index in range(0, len(dataset), 13):
        subject, study = str(dataset.subject_ids[index]), dataset.study_ids[index]
        for row, dicom_id in zip(dataset.image_rows(index), manifest[index]["dicom_ids"]):
            path = real_cxr / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom_id}.jpg"
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L").resize((224, 224), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(dataset.image(row), pixels)
        expected = [float(labels[study][name] or "nan") for name in CHEXPERT_LABELS]
        np.testing.assert_array_equal(dataset.labels[index], expected)
        for sentence, tokens in zip(dataset.sentences(index), dataset.sentence_tokens(index)):
            assert tokens.tolist() == tokenizer(sentence, add_special_tokens=False)["input_ids"]
    end = int(json.loads((real / "dataset.json").read_text(encoding="utf-8"))["splits"]["train"]["images"])
    training = dataset.images[:end].astype(np.float64) / 255
    assert dataset.image_mean == pytest.approx(training.mean(), rel=1e-9)
    assert dataset.image_std == pytest.approx(training.std(), rel=1e-9)


NOT_UTF8 = 51046992


def overlay(real_cxr, real_cxr_broken, root, leave_out):
    """The real bundle with the broken studies laid over it, without the rows of the study `leave_out`."""
    shutil.copytree(real_cxr / "files", root / "files", copy_function=os.symlink)
    for path in (real_cxr_broken / "files").rglob("*"):
        if path.is_file():
            target = root / path.relative_to(real_cxr_broken)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    for path in real_cxr.glob("mimic-cxr-2.0.0-*.csv"):
        more = (real_cxr_broken / path.name).read_text(encoding="utf-8").splitlines(keepends=True)[1:]
        more = [line for line in more if str(leave_out) not in line]
        (root / path.name).write_text(path.read_text(encoding="utf-8") + "".join(more), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def overlaid(real_cxr, real_cxr_broken, tmp_path_factory):
    """The real bundle with the five studies that can't be read."""
    return overlay(real_cxr, real_cxr_broken, tmp_path_factory.mktemp("overlaid") / "tree", NOT_UTF8)


def test_a_report_in_latin_1_is_read_and_counted(real, real_cxr, real_cxr_broken, tmp_path):
    tree = overlay(real_cxr, real_cxr_broken, tmp_path / "tree", None)
    report = prepare_studies(mimic_options(images=tree, out=tmp_path / "out", workers=2))
    assert report["broken_files"] == 5
    assert "1 report(s) are not UTF-8 and were read in another encoding, cp1252 unless marked" in report["notes"]
    dataset = PreparedDataset.open(tmp_path / "out")
    assert len(dataset) == len(PreparedDataset.open(real)) + 1
    sentences = dataset.sentences(dataset.study_ids.tolist().index(NOT_UTF8))
    assert len(sentences) == 5 and sentences[0].startswith("There is some minimal patchy opacity in left base")


def test_broken_studies_change_nothing_but_the_list(real, overlaid, real_cxr_broken, tmp_path):
    report = prepare_studies(mimic_options(images=overlaid, out=tmp_path / "out", workers=2))
    assert report["broken_files"] == 5
    before, after = contents(real), contents(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} == {"dataset.json", "rejected.csv"}
    infos = [json.loads(files["dataset.json"]) for files in (before, after)]
    for info in infos:
        del info["files"]["rejected.csv"], info["seal"]
    assert infos[0] == infos[1]
    broken = json.loads((real_cxr_broken / "expected.json").read_text(encoding="utf-8"))["broken"]
    broken = [row for row in broken if row["study_id"] != NOT_UTF8]
    new = [row for row in rejected(tmp_path / "out") if row not in rejected(real)]
    assert {int(row["study"]) for row in new} == {row["study_id"] for row in broken}
    reasons = {(int(row["study"]), row["file"]): row["reason"] for row in new}
    words = {
        "truncated_jpeg": "truncated",
        "text_as_jpeg": "no image in a known format",
        "zero_byte_jpeg": "empty",
        "missing_image": "no such file",
        "missing_report": "report missing",
    }
    for row in broken:
        subject = str(row["subject_id"])
        report_path = f"files/p{subject[:2]}/p{subject}/s{row['study_id']}.txt"
        file = report_path if "report" in row["kind"] else row["expected_image_path"]
        assert words[row["kind"]] in reasons[row["study_id"], file]


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_stops_at_a_broken_file(overlaid, tmp_path, workers):
    with pytest.raises(
        RunError, match=r"--strict: study 53969910, files/p12/p12967675/s53969910/814a.*: image not readable \(no image"
    ):
        prepare_studies(mimic_options(images=overlaid, out=tmp_path / "out", workers=workers, strict=True))
    assert not (tmp_path / "out").exists()


def test_strict_lets_filters_do_their_work(real, real_cxr, tmp_path):
    prepare_studies(mimic_options(images=real_cxr, out=tmp_path / "out", strict=True))
    assert contents(tmp_path / "out") == contents(real)


def test_the_number_of_workers_changes_nothing(real, real_cxr, tmp_path, small_chunks):
    prepare_studies(mimic_options(images=real_cxr, out=tmp_path / "out", workers=2))
    assert contents(tmp_path / "out") == contents(real)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
