"""The phantom's pictures and files."""

import csv
import gzip
import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from prior_fast.cli.main import main
from prior_fast.phantom import generate, mimic
from prior_fast.phantom.anatomy import Patient, draw_chest
from prior_fast.phantom.contents import FINDINGS, Finding, StudyContents, plan_study, stream
from prior_fast.phantom.generate import PhantomOptions, contents_of, generate_dataset
from prior_fast.phantom.mimic import place_studies
from prior_fast.phantom.render import Drawing, render_frontal
from prior_fast.phantom.textures import Grid
from prior_fast.radiology.labels import FIVE_CLASSES

SIZE = 224


def digests(root: Path, folder: str = "") -> dict[str, str]:
    """SHA-256 of each file but report.json, which holds the time it took."""
    paths = [path for path in (root / folder).rglob("*") if path.is_file() and path.name != "report.json"]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read_table(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    text = gzip.decompress(data).decode() if path.suffix == ".gz" else data.decode()
    return list(csv.DictReader(io.StringIO(text)))


def render(finding: Finding | None, number: int) -> Drawing:
    plan = StudyContents(()) if finding is None else StudyContents((finding,))
    return render_frontal(Patient.sample(stream(3, number)), plan, 3, number, 0, SIZE)


def lone_finding(name: str, number: int) -> Finding:
    """A finding as in the plans, without a hedge."""
    for attempt in range(10_000):
        (found, *others) = plan_study(stream(4, number, attempt), stream(5, attempt), attempt % 20).findings or (None,)
        if found is not None and not others and found.name == name and not found.hedged:
            return found
    raise AssertionError(name)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "data"
    generate_dataset(PhantomOptions(out, studies=40, seed=7, size=160))
    return out


def test_bytes_do_not_depend_on_workers(dataset: Path, tmp_path: Path) -> None:
    generate_dataset(PhantomOptions(tmp_path / "two", studies=40, seed=7, size=160, workers=2))
    assert digests(tmp_path / "two") == digests(dataset)


def test_a_longer_dataset_begins_with_the_shorter_one(dataset: Path, tmp_path: Path) -> None:
    generate_dataset(PhantomOptions(tmp_path / "short", studies=9, seed=7, size=160))
    whole = digests(dataset)
    short = {**digests(tmp_path / "short", "files"), **digests(tmp_path / "short", "masks")}
    assert short and short.items() <= whole.items()
    for table in tmp_path.glob("short/*.csv*"):
        rows = read_table(table)
        assert rows == read_table(dataset / table.name)[: len(rows)]


def test_another_seed_gives_other_studies(dataset: Path, tmp_path: Path) -> None:
    generate_dataset(PhantomOptions(tmp_path / "other", studies=3, seed=8, size=160))
    assert not set(digests(tmp_path / "other", "files").values()) & set(digests(dataset, "files").values())


def test_layout_is_that_of_mimic(dataset: Path, real_cxr: Path) -> None:
    tables = {}
    for name in ("metadata", "split", "chexpert"):
        with (real_cxr / f"mimic-cxr-2.0.0-{name}.csv").open() as file:
            columns = next(csv.reader(file))
        tables[name] = read_table(dataset / f"mimic-cxr-2.0.0-{name}.csv.gz")
        assert list(tables[name][0]) == columns
    assert {row["ViewPosition"] for row in tables["metadata"]} >= {"AP", "PA", "LATERAL"}
    for row in tables["metadata"]:
        subject, study = row["subject_id"], row["study_id"]
        assert re.fullmatch(r"1\d{7}", subject) and re.fullmatch(r"5\d{7}", study)
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", row["dicom_id"])
        folder = dataset / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
        assert folder.with_suffix(".txt").is_file()
        with Image.open(folder / f"{row['dicom_id']}.jpg") as image:
            assert (image.mode, image.format) == ("L", "JPEG")
            assert (image.height, image.width) == (int(row["Rows"]), int(row["Columns"]))
            assert max(image.size) == 160
    files = list((dataset / "files").rglob("*.jpg"))
    assert len(files) == len(tables["metadata"]) == len(tables["split"])
    assert len(tables["chexpert"]) == 40


def test_annotations_frame_their_masks(dataset: Path) -> None:
    sizes = {r["dicom_id"]: r for r in read_table(dataset / "mimic-cxr-2.0.0-metadata.csv.gz")}
    rows = read_table(dataset / "annotations.csv")
    assert {row["finding"] for row in rows} == set(FINDINGS)
    for row in rows:
        mask = np.asarray(Image.open(dataset / row["mask"]))
        assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
        assert mask.shape == (int(sizes[row["dicom_id"]]["Rows"]), int(sizes[row["dicom_id"]]["Columns"]))
        x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
        inside = mask[y : y + height, x : x + width]
        assert inside.sum() == mask.sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_subjects_do_not_cross_splits() -> None:
    places = place_studies(seed=3, studies=1000)
    splits: dict[int, set[str]] = {}
    for place in places:
        splits.setdefault(place.subject_id, set()).add(place.split)
    assert all(len(split) == 1 for split in splits.values())
    assert len({place.study_id for place in places}) == 1000
    shares = {name: sum(place.split == name for place in places) / 1000 for name in ("train", "validate", "test")}
    assert shares["train"] == pytest.approx(0.74, abs=0.04)
    assert shares["validate"] == pytest.approx(0.10, abs=0.03)
    assert max(sum(p.subject_id == s for p in places) for s in splits) == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_each_of_the_five_stands_alone_often_enough(seed: int) -> None:
    places = place_studies(seed, 1000)
    plans = [contents_of(seed, place) for place in places]
    names = [{finding.name for finding in plan.findings} & set(FIVE_CLASSES) for plan in plans]
    assert sum(len(n) == 1 for n in names) == pytest.approx(550, abs=60)
    assert sum(not plan.findings for plan in plans) == pytest.approx(150, abs=20)
    for finding in FIVE_CLASSES:
        alone = sum(n == {finding} for n, place in zip(names, places) if place.split == "test")
        assert alone >= 15, finding


def test_findings_of_one_study_have_room() -> None:
    """No two share a zone, and nothing is drawn into a pneumothorax."""
    for place in place_studies(seed=9, studies=1500):
        plan = contents_of(9, place)
        zones = [(side, f.zone) for f in plan.findings if f.zone for side in f.sides]
        assert len(zones) == len(set(zones))
        pneumothorax = plan.finding("Pneumothorax")
        if pneumothorax:
            others = [f for f in plan.findings if f.name not in ("Pneumothorax", "Cardiomegaly", "Edema")]
            assert all(pneumothorax.side not in f.sides for f in others)


@pytest.mark.parametrize("name", [n for n in FINDINGS if n not in ("Cardiomegaly", "Edema")])
def test_right_is_at_the_left_of_the_image(name: str) -> None:
    for number, side in enumerate(("right", "left") * 3):
        finding = replace(lone_finding(name, number), side=side)
        if finding.zone == "lower" and finding.form == "linear" and number < 2:
            finding = replace(finding, severity="mild")
        mask = render(finding, number).masks[name]
        centre = ndimage.center_of_mass(mask)[1] / mask.shape[1]
        assert centre < 0.42 if side == "right" else centre > 0.58


@pytest.mark.parametrize("name", FINDINGS)
def test_masks_are_where_the_finding_changed_the_image(name: str) -> None:
    for number in range(6):
        finding = lone_finding(name, number)
        drawn = render(finding, number)
        change = np.abs(drawn.pixels.astype(int) - render(None, number).pixels)
        mask = drawn.masks[name]
        near = ndimage.binary_dilation(mask, iterations=4)
        assert change[near].sum() > 0.75 * change.sum(), finding
        if name != "Cardiomegaly":  # a large heart covers a normal one, which changes its rim only
            assert np.median(change[mask]) > 5 * max(1, np.median(change[~near])), finding


def test_masks_have_no_specks() -> None:
    """Specks far from a finding would stretch its box; the tip of a faint collapse breaks off most easily."""
    faint = Finding("Atelectasis", "right", "mild", "lower", "lobar", hedged=True)
    for number in range(16):
        finding = faint if number % 2 else replace(faint, side="left")
        mask = render(finding, number).masks["Atelectasis"]
        parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
        assert np.bincount(parts[mask], minlength=count + 1)[1:].min() > 0.012 * mask.sum(), number


def test_even_mild_and_hedged_findings_can_be_seen() -> None:
    for number, name in enumerate(n for n in FINDINGS if n != "Cardiomegaly"):
        finding = lone_finding(name, number)
        form = "linear" if finding.form else ""
        finding = replace(finding, severity="mild", form=form, zone=finding.zone and "upper", hedged=True)
        drawn = render(finding, number)
        change = np.abs(drawn.pixels.astype(int) - render(None, number).pixels)
        assert drawn.masks[name].mean() > 0.002, finding
        assert np.percentile(change[drawn.masks[name]], 70) > 8, finding


def test_heart_has_the_ratio_that_was_asked_for() -> None:
    grid = Grid.make((400, 400), 150.0, (200.0, 210.0), 0.0)
    for number, ratio in enumerate((0.42, 0.56, 0.69)):
        patient = Patient.sample(stream(6, number)).with_heart(ratio)
        heart = draw_chest(patient, grid, {}, stream(7, number)).heart > 0.5
        columns = np.flatnonzero(heart.any(axis=0))
        measured = (columns[-1] - columns[0] + 1) / 150.0 / (2 * patient.width)
        assert measured == pytest.approx(ratio, abs=0.015)


def test_shape_tells_findings_apart_and_brightness_does_not() -> None:
    """A linear probe on 32 x 32 pixels beats chance (0.2) clearly; mean and deviation of the gray levels don't."""
    pixels, labels = [], []
    for number in range(230):
        finding = lone_finding(FIVE_CLASSES[number % 5], number)
        image = Image.fromarray(render(finding, 1000 + number).pixels)
        pixels.append(np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float64) / 255)
        labels.append(number % 5)
    x, y = np.array(pixels), np.array(labels)
    brightness = np.stack([x.mean(axis=(1, 2)), x.std(axis=(1, 2))], axis=1)
    shape = ((x - x.mean(axis=(1, 2), keepdims=True)) / x.std(axis=(1, 2), keepdims=True)).reshape(len(x), -1)

    def accuracy(features: np.ndarray, strength: float) -> float:
        features = (features - features[:160].mean(axis=0)) / features[:160].std(axis=0)
        probe = LogisticRegression(C=strength, max_iter=2000).fit(features[:160], y[:160])
        return float(probe.score(features[160:], y[160:]))

    assert accuracy(shape, 1e-2) > 0.5
    assert accuracy(brightness, 1.0) < 0.36


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(generate, "write_tables", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_dataset(PhantomOptions(tmp_path / "out", studies=1, size=64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--studies", "0"], "--studies is 0"),
        (["--studies", "-3"], "--studies is -3"),
        (["--seed", "-1"], "--seed is -1"),
        (["--size", "8"], "--size is 8"),
        (["--workers", "0"], "--workers is 0"),
        (["--studies", "many"], "many"),
    ],
)
def test_wrong_settings_are_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["phantom", "--out", str(tmp_path / "out"), *words]) == 2
    message = capsys.readouterr().err
    assert said in message and len(message.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_occupied_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["phantom", "--out", str(tmp_path / "file"), "--studies", "1"]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["phantom", "--out", str(tmp_path), "--studies", "1"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_command_writes_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    assert main(["phantom", "--out", str(out), "--studies", "2", "--size", "64", "--workers", "1"]) == 0
    assert "2 studies" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {"files", "masks", "annotations.csv", "report.json"}
    assert len(read_table(out / "mimic-cxr-2.0.0-chexpert.csv.gz")) == 2
    assert mimic.CHEXPERT_COLUMNS[0] == "subject_id"
