"""OpenI, PadChest and CheXpert Plus in small folders of their true forms."""

import json

import numpy as np
import pytest
from PIL import Image

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.radiology.labels import CHEXPERT_LABELS
from tests.prepare.labelled.trees import raw_dicom, xray
from tests.prepare.studies.tables import prepare, rejected, save_xray, write_table

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
  <uId id="CXR{number}"/>
  <MedlineCitation Owner="Indiana University"><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="INDICATION">Positive TB test &amp; cough</AbstractText>
    <AbstractText Label="FINDINGS">{findings}</AbstractText>
    <AbstractText Label="IMPRESSION">{impression}</AbstractText>
  </Abstract></Article></MedlineCitation>
  <MeSH>{mesh}</MeSH>
  {pictures}
</eCitation>
"""


def openi(root, count=12):
    for number in range(count):
        ids = [f"CXR{number}_IM-{number:04d}-1001", f"CXR{number}_IM-{number:04d}-2001"]
        for place, name in enumerate(ids):
            save_xray(root / f"NLMCXR_png/{name}.png", 10 * number + place)
        mesh = ("<major>normal</major>", "<major>Cardiomegaly/mild</major><major>Pulmonary Atelectasis/left</major>")
        record = XML.format(
            number=number,
            findings="The lungs are clear. No effusion." if number % 3 else "",
            impression="Normal chest.",
            mesh=mesh[number % 2],
            pictures="".join(f'<parentImage id="{name}"><panel/></parentImage>' for name in ids),
        )
        path = root / f"NLMCXR_reports/ecgen-radiology/{number}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record, encoding="utf-8")
    return root


def test_openi(tmp_path, capsys):
    root = openi(tmp_path)
    words = ("--images", root / "NLMCXR_png", "--reports", root / "NLMCXR_reports")
    (root / "NLMCXR_reports/ecgen-radiology/90.xml").write_text("<eCitation><uId", encoding="utf-8")
    (root / "NLMCXR_reports/ecgen-radiology/91.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    assert prepare("openi", tmp_path / "all", *words) == 0
    assert "the XML files do not say the view" in capsys.readouterr().err
    dataset = PreparedDataset.open(tmp_path / "all")
    assert sorted(dataset.study_names) == sorted(f"CXR{number}" for number in range(12))
    assert len(dataset.images) == 24
    index = dataset.study_names.index("CXR1")
    assert dataset.sentences(index) == ["The lungs are clear.", "No effusion.", "Normal chest."]
    present = [CHEXPERT_LABELS[column] for column in np.flatnonzero(dataset.labels[index] == 1)]
    assert present == ["Atelectasis", "Cardiomegaly"] and np.isnan(dataset.labels[index]).sum() == 12
    assert dataset.sentences(dataset.study_names.index("CXR0")) == ["Normal chest."]
    reasons = [reason for _, _, reason in rejected(tmp_path / "all/rejected.csv")]
    assert len(reasons) == 2 and all("XML not readable" in reason for reason in reasons)
    views = [(n, f"{n}_IM-{n:04d}-{v}001.dcm.png", ("Frontal", "Lateral")[v - 1]) for n in range(12) for v in (1, 2)]
    projections = write_table(tmp_path / "indiana_projections.csv", ("uid", "filename", "projection"), views)
    assert prepare("openi", tmp_path / "frontal", *words, "--projections", projections) == 0
    frontal = PreparedDataset.open(tmp_path / "frontal")
    assert len(frontal.images) == len(frontal) == 12


def test_openi_without_xml_files(tmp_path, capsys):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/NLMCXR_reports.tgz").write_bytes(b"")
    assert prepare("openi", tmp_path / "out", "--images", tmp_path, "--reports", tmp_path / "reports") == 2
    assert "there is no .xml file in it or below; it holds NLMCXR_reports.tgz" in capsys.readouterr().err


PADCHEST = (
    *("", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "Projection"),
    *("ReportID", "Report", "MethodLabel", "Labels"),
)


def test_padchest(tmp_path):
    rows, pixels = [], {}
    for number in range(20):
        name = f"{number}_pad.png"
        stored = (xray(number).astype(np.uint16) * 16).clip(0, 4095)
        path = tmp_path / f"images/{number % 2}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stored).save(path)
        pixels[f"S{number}"] = stored
        view = ("PA", "AP_horizontal", "L")[number % 3]
        labels = ("['pleural effusion', 'laminar atelectasis']", "['normal']")[number % 2]
        report = "derram pleural izquierd . atelectasi laminar ." if number != 4 else ""
        rows.append(
            (number, name, number % 2, 2014, f"S{number}", f"P{number}", 1950, view, 9, report, "Physician", labels)
        )
    table = write_table(tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", PADCHEST, rows)
    assert prepare("padchest", tmp_path / "out", "--images", tmp_path / "images", "--table", table) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    assert set(dataset.study_names) == {f"S{n}" for n in range(20) if n % 3 != 2 and n != 4}
    index = dataset.study_names.index("S0")
    assert [sentence.rstrip(" .") for sentence in dataset.sentences(index)] == [
        "derram pleural izquierd",
        "atelectasi laminar",
    ]
    present = [CHEXPERT_LABELS[column] for column in np.flatnonzero(dataset.labels[index] == 1)]
    assert present == ["Atelectasis", "Pleural Effusion"]
    image = dataset.image(dataset.image_rows(index)[0])
    assert image.max() > 240 and len(np.unique(image)) > 60
    reasons = {reason for _, _, reason in rejected(tmp_path / "out/rejected.csv")}
    assert reasons == {"no frontal view (L)", "no report"}


CHEXPERT_PLUS = (
    *("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order"),
    *("report", "section_narrative", "section_findings", "section_impression", "age", "split"),
)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".dcm"])
def test_chexpert_plus(tmp_path, suffix):
    rows, labels = [], []
    for number in range(16):
        for view in ("frontal", "lateral")[: 1 + number % 2]:
            stem = f"{'valid' if number % 8 == 7 else 'train'}/patient{number:05d}/study1/view1_{view}"
            path = tmp_path / f"images/{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".dcm":
                raw_dicom(path, xray(number))
            else:
                save_xray(path, number)
            findings = "Lungs clear." if number != 2 else ""
            impression = "1. NORMAL CHEST." if number != 2 else ""
            whole = "CLINICAL HISTORY: cough IMPRESSION: Small nodule." if number == 2 else "IMPRESSION: other words"
            ids = (f"{stem}.jpg", f"{stem}.dcm", view.title(), "AP", f"patient{number:05d}", 1)
            rows.append((*ids, whole, "", findings, impression, 50, "valid" if number % 8 == 7 else "train"))
            values = {name: (1.0 if name == "Edema" and number % 2 else None) for name in CHEXPERT_LABELS}
            labels.append({"path_to_image": f"{stem}.jpg", **values})
    table = write_table(tmp_path / "df_chexpert_plus_240401.csv", CHEXPERT_PLUS, rows)
    (tmp_path / "report_fixed.json").write_text("\n".join(map(json.dumps, labels)), encoding="utf-8")
    words = ("--table", table, "--images", tmp_path / "images")
    assert prepare("chexpert_plus", tmp_path / "out", *words, "--labels", tmp_path / "report_fixed.json") == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    assert len(dataset) == len(dataset.images) == 16
    assert dataset.study_names[0] == "patient00000/study1"
    assert dataset.sentences(0) == ["Lungs clear.", "NORMAL CHEST."]
    assert dataset.sentences(dataset.study_names.index("patient00002/study1")) == ["Small nodule."]
    edema = dataset.labels[:, CHEXPERT_LABELS.index("Edema")]
    numbers = [int(name[7:12]) for name in dataset.study_names]
    np.testing.assert_array_equal(edema, [1.0 if number % 2 else np.nan for number in numbers])
    assert len(PreparedDataset.open(tmp_path / "out", "validate")) == 2
    assert prepare("chexpert_plus", tmp_path / "bare", *words) == 0
    assert PreparedDataset.open(tmp_path / "bare").classes == ()
