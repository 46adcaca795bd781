"""Folders of kinds that users have, each prepared with one command; the slow test goes on to a score."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom import Dataset, Sequence, dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from tests.prepare.labelled.trees import raw_dicom
from tests.prepare.studies.tables import write_table

COUNT = 60
FINDINGS = {
    "Cardiomegaly": "The heart is enlarged. No effusion is seen.",
    "Pleural Effusion": "There is a left pleural effusion. The heart is normal.",
    "Edema": "There is pulmonary edema. The heart is normal in size.",
}
LABELS = tuple(FINDINGS)
TEXTS = tuple(FINDINGS.values())
SPLITS = ("train", "train", "train", "validate", "test")
SIZE = (40, 56)


def stored(number: int, bits: int = 8) -> np.ndarray:
    """Made-up pixels of so many bits, brighter for some findings: [56, 40]."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    bright = np.exp(-((x - 20) ** 2 + (y - 28) ** 2) / 200) * (0.3 + 0.3 * (number % 3))
    levels = (bright + 0.2 * np.random.default_rng(number).random(bright.shape)).clip(0, 1) * (2**bits - 1)
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def split(number: int) -> str:
    return SPLITS[number // 3 % 5]


def rows(suffix: str) -> list[tuple]:
    return [(f"x{n}{suffix}", TEXTS[n % 3], LABELS[n % 3], split(n)) for n in range(COUNT)]


HEADER = ("image", "report", "labels", "split")


def with_table(root: Path, suffix: str, save: Callable[[Path, int], None], header=HEADER) -> list[object]:
    (root / "images").mkdir(parents=True)
    for number in range(COUNT):
        save(root / f"images/x{number}{suffix}", number)
    table = write_table(root / "t.csv", header, rows(suffix))
    return ["table", "--table", table, "--images", root / "images", "--labels", "labels"]


def png_16_bit(root: Path) -> list[object]:
    return with_table(root, ".png", lambda path, n: Image.fromarray(stored(n, 12)).save(path))


def dicom_voi_lut(root: Path) -> list[object]:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.LUTData = (np.linspace(0, 1, 4096) ** 2 * 65535).astype("<u2").tobytes()
    return with_table(root, ".dcm", lambda path, n: raw_dicom(path, stored(n, 12), 12, VOILUTSequence=Sequence([item])))


def dicom_inverse(root: Path) -> list[object]:
    return with_table(root, "", lambda path, n: raw_dicom(path, stored(n, 12), 12, PresentationLUTShape="INVERSE"))


def turned_jpeg(root: Path) -> list[object]:
    def save(path: Path, number: int) -> None:
        image = Image.fromarray(stored(number))
        exif = image.getexif()
        exif[274] = 1 + number % 8
        image.save(path, quality=95, exif=exif)

    return with_table(root, ".jpg", save)


def parquet(root: Path) -> list[object]:
    words = with_table(root, ".png", lambda path, n: Image.fromarray(stored(n)).save(path))
    columns = dict(zip(HEADER, map(list, zip(*rows(".png")))))
    pq.write_table(pa.table(columns), root / "t.parquet")
    words[2] = root / "t.parquet"
    return words


def tsv_of_text_files(root: Path) -> list[object]:
    """latin-1 reports in files, images one folder deeper in another case of their ending."""
    (root / "images/deeper").mkdir(parents=True)
    (root / "texts").mkdir()
    for number in range(COUNT):
        Image.fromarray(stored(number)).save(root / f"images/deeper/x{number}.PNG")
        text = f"INDICATION: café\r\nFINDINGS:\r\n{TEXTS[number % 3]}\r\n"
        (root / f"texts/r{number}.txt").write_bytes(text.encode("latin-1"))
    cells = [(f"x{n}.png", f"r{n}.txt", LABELS[n % 3], split(n)) for n in range(COUNT)]
    table = write_table(root / "t.tsv", HEADER, cells)
    words = ["--images", root / "images", "--reports", root / "texts", "--labels", "labels"]
    return ["table", "--table", table, *words]


def upper_case_columns(root: Path) -> list[object]:
    header = ("IMAGE PATH", "REPORT", "LABELS", "SPLIT")
    return with_table(root, ".png", lambda path, n: Image.fromarray(stored(n)).save(path), header)


def openi(root: Path) -> list[object]:
    mesh = ("Cardiomegaly", "Pleural Effusion", "Pulmonary Edema")
    for number in range(COUNT):
        name = f"CXR{number}_IM-0001-1001"
        path = root / f"NLMCXR_png/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stored(number)).save(path)
        record = root / f"NLMCXR_reports/ecgen-radiology/{number}.xml"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(
            f'<eCitation><uId id="CXR{number}"/><AbstractText Label="FINDINGS">{TEXTS[number % 3]}</AbstractText>'
            f'<MeSH><major>{mesh[number % 3]}</major></MeSH><parentImage id="{name}"/></eCitation>',
            encoding="utf-8",
        )
    return ["openi", "--images", root / "NLMCXR_png", "--reports", root / "NLMCXR_reports"]


def padchest(root: Path) -> list[object]:
    labels = ("['cardiomegaly']", "['pleural effusion']", "['pulmonary edema']")
    header = ("", "ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "Report", "Labels")
    cells = []
    for number in range(COUNT):
        path = root / f"images/3/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stored(number, 16)).save(path)
        report = f"{TEXTS[number % 3].lower().replace('.', ' .')}"
        cells.append((number, path.name, 3, f"S{number}", f"P{number}", "PA", report, labels[number % 3]))
    table = write_table(root / "padchest.csv", header, cells)
    return ["padchest", "--images", root / "images", "--table", table]


KINDS = (
    *(png_16_bit, dicom_voi_lut, dicom_inverse, turned_jpeg, parquet, tsv_of_text_files, upper_case_columns),
    *(openi, padchest),
)


def prepared(make: Callable[[Path], list[object]], folder: Path) -> PreparedDataset:
    words = make(folder / "files")
    assert main(["prepare", *map(str, words), "--out", str(folder / "out"), "--workers", "1"]) == 0
    return PreparedDataset.open(folder / "out", verify="full")


@pytest.mark.parametrize("make", KINDS)
def test_one_command_prepares_it(tmp_path, make):
    dataset = prepared(make, tmp_path)
    assert len(dataset) == len(dataset.images) == COUNT
    numbers = [int("".join(filter(str.isdigit, name))) for name in dataset.study_names]
    for index, number in enumerate(numbers):
        words = " ".join(dataset.sentences(index)).lower().replace(" .", ".")
        assert words == TEXTS[number % 3].lower()
        (label,) = np.flatnonzero(dataset.labels[index] == 1)
        assert dataset.classes[label] == LABELS[number % 3]
    by_finding = [dataset.images[[n for n, own in enumerate(numbers) if own % 3 == kind]].mean() for kind in range(3)]
    darker = make is dicom_inverse
    assert by_finding == sorted(by_finding, reverse=darker) and abs(by_finding[2] - by_finding[0]) > 10
    assert min(len(np.unique(image)) for image in dataset.images) > 40


@pytest.mark.parametrize("make", [dicom_voi_lut, dicom_inverse])
def test_pixels_of_dicom_files_are_pydicoms(tmp_path, make):
    dataset = prepared(make, tmp_path)
    for index, name in list(enumerate(dataset.study_names))[::7]:
        header = dcmread(tmp_path / "files/images" / name)
        values = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header).astype(np.float64)
        gray = np.rint(values / (65535 if make is dicom_voi_lut else 4095) * 255).astype(np.uint8)
        gray = 255 - gray if make is dicom_inverse else gray
        expected = np.asarray(Image.fromarray(gray).resize((224, 224), Image.Resampling.BILINEAR))
        found = dataset.image(dataset.image_rows(index)[0])
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_from_files_to_a_score(tmp_path, make, monkeypatch):
    """OpenI and PadChest have no split of their own: of 60 subjects the hash leaves too few to test."""
    prepared(make, tmp_path)
    monkeypatch.chdir(tmp_path)
    words = "--preset tiny --data out --out run stage_epochs=1,1,1 batch_size=16"
    assert main(["train", *words.split()]) == 0
    words = ["evaluate", "zero-shot", "--checkpoint", "run", "--data", "out", "--out", "zero-shot"]
    part = "train" if make in (openi, padchest) else "test"
    assert main([*words, "--split", part, f"classes={','.join(LABELS)}"]) == 0
    metrics = json.loads((tmp_path / "zero-shot/metrics.json").read_text(encoding="utf-8"))
    assert metrics["metrics"]["accuracy"]["chance"] == pytest.approx(1 / 3)
    assert 0 <= metrics["metrics"]["accuracy"]["value"] <= 1
