"""`prior-fast pictures` on datasets without labels and annotations, and with labels of other names."""

import json
from pathlib import Path

import pytest

from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.encode import Encoder
from prior_fast.pictures.attention_examples import KINDS, labelled_examples
from prior_fast.pictures.config import PictureInputs, PicturesConfig
from prior_fast.pictures.embedding import named_class
from prior_fast.plotting.sheet import Sheet
from prior_fast.radiology.labels import FIVE_CLASSES
from prior_fast.training.checkpoint import open_checkpoint
from tests.evaluation import fake_store
from tests.evaluation.fake_store import write_checkpoint, write_store
from tests.evaluation.own_store import own_labels, rewrite
from tests.pictures.test_pictures_command import ALL, ZERO_SHOT, pictures, shown_files

MARKED = {"attention-weight.png", "attention-departure.png"}


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts above the images of all sheets that are drawn."""
    found: list[str] = []
    above = Sheet.above

    def remembered(self: Sheet, row: int, column: int, text: str, *rest: object) -> None:
        found.append(text)
        above(self, row, column, text, *rest)

    monkeypatch.setattr(Sheet, "above", remembered)
    return found


def test_without_labels_and_annotations_the_rest_is_made(
    store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], titles: list[str]
) -> None:
    plain, out = rewrite(store, tmp_path / "plain"), tmp_path / "out"
    assert pictures(run_folder, plain, out, "count=2", "device=cpu") == 0
    assert shown_files(out) == ALL - ZERO_SHOT - MARKED == {path.name for path in out.glob("*.png")}
    sections, page = json.loads((out / "report.json").read_text())["sections"], (out / "index.html").read_text()
    reasons = {
        "zero-shot": "The studies of the test split have no labels.",
        "attention": "Prompts over images with a finding are left out: the test split has no label and no annotation",
    }
    assert {key for key, section in sections.items() if section["left_out"]} == set(reasons)
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for key, reason in reasons.items():
        assert sections[key]["left_out"].startswith(reason) and reason in page
    assert "left out: The studies of the test split" in shown
    # Studies are named as in the source.
    named = [title for title in titles if "study" in title]
    assert len(named) == 4 and all("study CXR" in title and "_IM-0001" in title for title in named)


def test_own_classes_are_in_the_pictures(store: Path, run_folder: Path, tmp_path: Path, titles: list[str]) -> None:
    own, out = rewrite(store, tmp_path / "own", own_labels(store)), tmp_path / "out"
    assert pictures(run_folder, own, out, "count=2", "device=cpu") == 0
    assert shown_files(out) == ALL
    section = json.loads((out / "report.json").read_text())["sections"]["zero-shot"]
    assert list(section["auroc"]) == ["Nodule", "Tuberculosis", "TB scar", "Shadow"]
    assert section["auroc"]["Shadow"] is None and section["left_out"] is None
    page = (out / "index.html").read_text()
    assert "exactly one of 4 findings" in page and "All 2 with Shadow have another of the classes too" in page
    assert "class of the dataset whose name is in the sentence" in page
    assert titles[:4] == titles[4:8] == ["Nodule", "Tuberculosis", "TB scar", "Shadow"]


def test_one_own_class_in_the_pictures(store: Path, run_folder: Path, tmp_path: Path) -> None:
    own = rewrite(store, tmp_path / "own", {"Tuberculosis": own_labels(store)["Tuberculosis"]})
    assert pictures(run_folder, own, tmp_path / "out", "count=1", "device=cpu") == 0
    section = json.loads((tmp_path / "out" / "report.json").read_text())["sections"]["zero-shot"]
    assert list(section["auroc"]) == ["Tuberculosis"] and section["images"] == 22
    page = (tmp_path / "out" / "index.html").read_text()
    assert "5 of 22 X-rays are of studies with Tuberculosis." in page
    assert "&quot;Tuberculosis is observed&quot; or &quot;No Tuberculosis is observed&quot;" in page


def test_images_of_own_classes_have_them(store: Path, run_folder: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset.open(rewrite(store, tmp_path / "own", own_labels(store)), "test")
    inputs = PictureInputs(Encoder(open_checkpoint(run_folder), "cpu"), dataset, PicturesConfig(count=1), tmp_path)
    shown = labelled_examples(inputs, KINDS[0])
    assert inputs.findings == tuple(shown) == ("Nodule", "Tuberculosis", "TB scar", "Shadow")
    owner = {row: study for study in range(len(dataset)) for row in dataset.image_rows(study)}
    for name, example in shown.items():
        assert dataset.labels[owner[example.image_row], dataset.classes.index(name)] == 1


def test_the_most_frequent_own_classes_are_shown(store: Path, run_folder: Path, tmp_path: Path) -> None:
    count = len(PreparedDataset.open(store))
    labels = {f"class {n}": [float(row % (n + 1) == 0) for row in range(count)] for n in range(12)}
    dataset = PreparedDataset.open(rewrite(store, tmp_path / "own", labels), "test")
    inputs = PictureInputs(Encoder(open_checkpoint(run_folder), "cpu"), dataset, PicturesConfig(), tmp_path)
    totals = dict(zip(dataset.classes, dataset.labels.sum(axis=0)))
    assert len(inputs.own_classes) == 8
    assert min(totals[name] for name in inputs.own_classes) >= max(
        total for name, total in totals.items() if name not in inputs.own_classes
    )


@pytest.mark.parametrize(
    "sentence, name",
    [
        ("Old tb scar in the apex .", "TB scar"),
        ("TB scarring .", "other"),
        ("TB scar beside a nodule .", "several findings"),
        ("Nodule(s) are seen .", "Nodule"),
    ],
)
def test_sentences_are_coloured_by_own_classes(sentence: str, name: str) -> None:
    assert named_class(sentence, ("TB scar", "Nodule")) == name


def test_prompts_for_own_classes_come_from_a_file(
    store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {name: values for name, values in own_labels(store).items() if name in ("Nodule", "TB scar")}
    own, path = rewrite(store, tmp_path / "own", labels), tmp_path / "p.json"
    path.write_text(json.dumps({"Nodule": ["a nodule"], "TB": ["a scar"]}))
    assert pictures(run_folder, own, tmp_path / "out", "count=1", f"prompts={path}") == 2
    error = capsys.readouterr().err
    assert "unknown class 'TB'" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
    path.write_text(json.dumps({"Nodule": ["a nodule"], "TB scar": ["a scar"]}))
    assert pictures(run_folder, own, tmp_path / "out", "count=2", f"prompts={path}") == 0
    assert shown_files(tmp_path / "out") >= ZERO_SHOT


def test_sentences_that_name_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of another topic: nothing is found by keywords, and every command still ends well."""
    monkeypatch.setattr(
        fake_store, "SENTENCES", {name: f"La {{}} placa {place} ." for place, name in enumerate(FIVE_CLASSES)}
    )
    monkeypatch.setattr(fake_store, "COMMON", ("Pulmones claros .", "Sin cambios .", "Placa de control ."))
    original = write_store(tmp_path / "store", annotated=False)
    data = rewrite(original, tmp_path / "data")
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints", data, stage=3)
    assert pictures(checkpoint, data, tmp_path / "pictures", "count=2", "device=cpu") == 0
    assert "embedding.png" in shown_files(tmp_path / "pictures")
    for task in ("generation", "bank"):
        paths = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(tmp_path / task)]
        assert main(["evaluate", task, *paths, "device=cpu"]) == 0
        metrics = json.loads((tmp_path / task / "metrics.json").read_text())["metrics"]
        if task == "generation":
            assert metrics["generated_prototypes"]["overall"]["recall"]["value"] is None
        else:
            assert metrics["sentences_that_name_a_finding"]["sentences"] == 0
            assert metrics["sentences_that_name_a_finding"]["purity"]["finding"]["value"] is None
