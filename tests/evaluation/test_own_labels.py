"""`prior-fast evaluate` on datasets without labels, and with labels of other names than CheXpert's."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.names import shortened
from tests.evaluation.own_store import name_of, own_labels, rewrite, write_labelled

TEST_NAMES = [name_of(row) for row in range(8, 25)]


@pytest.fixture(scope="module")
def plain(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No labels, no annotations."""
    return rewrite(store, tmp_path_factory.mktemp("plain") / "store")


@pytest.fixture(scope="module")
def own(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of other names."""
    return rewrite(store, tmp_path_factory.mktemp("own") / "store", own_labels(store))


def evaluate(task: str, checkpoint: Path, data: Path, out: Path, *words: str) -> dict[str, Any]:
    paths = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out)]
    assert main(["evaluate", task, *paths, "device=cpu", *words]) == 0
    return json.loads((out / "metrics.json").read_text())


def refused(task: str, checkpoint: Path, data: Path, out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    paths = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out)]
    assert main(["evaluate", task, *paths, "device=cpu", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not out.exists()
    return error


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["none", "blank"])
def test_zero_shot_without_labels_says_what_to_do(
    kind: str, store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"Edema": [None] * 25, "Cardiomegaly": [None] * 25} if kind == "blank" else {}
    data = rewrite(store, tmp_path / "data", labels)
    error = refused("zero-shot", checkpoint, data, tmp_path / "out", capsys)
    assert ("has no labels," in error) == (kind == "none") and ("no label for any of the 17" in error) == bool(labels)
    for way in ("`prior-fast evaluate retrieval`", "--labels", "`prior-fast prepare table`", "a labelled dataset"):
        assert way in error


@pytest.mark.parametrize("blank", [False, True])
def test_retrieval_without_labels_is_by_study(
    blank: bool, store: Path, plain: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rewrite(store, tmp_path / "data", {"Edema": [None] * 25, "TB": [None] * 25}) if blank else plain
    found = evaluate("retrieval", checkpoint, data, tmp_path / "out")
    shown = " ".join(capsys.readouterr().out.split())
    assert "have no labels: retrieval is by study" in shown and "recall @ 5, own study" in shown
    assert "retrieval is by study" in found["notes"][0] and found["protocol"]["by"] == "study"
    assert "per_class" not in found["protocol"] and "classes" not in found["protocol"]
    metrics = found["metrics"]
    texts = {tuple(report) for report in pq.read_table(data / "manifest.parquet")["sentences"].to_pylist()[8:]}
    assert metrics["studies"] == found["data"]["selected"] == 17 and metrics["different_texts"] == len(texts)
    for direction in ("image_to_text", "text_to_image"):
        assert "class_level" not in metrics[direction] and "by=study" in metrics[direction]["class_level_note"]
        level = metrics[direction]["instance_level"]
        assert set(level) == {"recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "median_rank"}
        assert all(np.isfinite([value["value"], value["chance"]]).all() for value in level.values())
    level = metrics["image_to_text"]["instance_level"]
    assert level["recall_at_5"]["chance"] == pytest.approx(5 / len(texts))
    assert level["mean_rank"]["chance"] == pytest.approx((len(texts) + 1) / 2)
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [row["study"] for row in rows] == TEST_NAMES and "class" not in rows[0]
    ranks = [float(row["rank_of_own_report"]) for row in rows]
    assert level["mean_rank"]["value"] == pytest.approx(np.mean(ranks))
    assert level["median_rank"]["value"] == pytest.approx(np.median(ranks))
    assert {row[f"report_{place}"] for row in rows for place in (1, 5)} <= set(TEST_NAMES)
    for name in ("selection_images", "selection_reports"):
        assert read_csv(tmp_path / "out" / f"{name}.csv") == [{"study": name} for name in TEST_NAMES]
    for name in ("retrieved-reports.png", "retrieved-images.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_the_studies_are_drawn_and_can_be_named_again(plain: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("cutoffs=1,3", "pictures=false")
    first = evaluate("retrieval", checkpoint, plain, tmp_path / "a", *words, "studies=6", "seed=2")
    drawn = [row["study"] for row in read_csv(tmp_path / "a" / "selection_images.csv")]
    assert len(set(drawn)) == 6 and set(drawn) < set(TEST_NAMES) and first["protocol"]["studies"] == 6
    other = evaluate("retrieval", checkpoint, plain, tmp_path / "b", *words, "studies=6", "seed=3")
    assert [row["study"] for row in read_csv(tmp_path / "b" / "selection_images.csv")] != drawn
    assert set(other["metrics"]["image_to_text"]["instance_level"]) == {
        *("recall_at_1", "recall_at_3", "mean_rank", "median_rank")
    }
    numbers = [50_000_000 + TEST_NAMES.index(name) + 8 for name in drawn]
    (tmp_path / "numbers.txt").write_text("\n".join(map(str, numbers)))
    (tmp_path / "names.csv").write_text("class,study\n" + "\n".join(f"Edema,{name}" for name in drawn))
    for path in (tmp_path / "a" / "selection_images.csv", tmp_path / "numbers.txt", tmp_path / "names.csv"):
        again = evaluate("retrieval", checkpoint, plain, tmp_path / "c", *words, f"image_ids={path}")
        assert again["metrics"] == first["metrics"]
        assert [row["study"] for row in read_csv(tmp_path / "c" / "predictions.csv")] == drawn


def test_by_study_takes_all_of_a_labelled_split(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("pictures=false", "rank_within=5")
    by_study = evaluate("retrieval", checkpoint, store, tmp_path / "a", "by=study", "pictures=false")
    by_class = evaluate("retrieval", checkpoint, store, tmp_path / "b", "pictures=false")
    assert by_study["metrics"]["studies"] == 17 and by_class["metrics"]["studies"] == 15
    assert "notes" not in by_study and by_class["protocol"]["by"] == "class"
    for level in ("class_level", "instance_level"):
        assert level in by_class["metrics"]["text_to_image"]
    # Datasets without names of studies have their numbers.
    assert read_csv(tmp_path / "a" / "selection_images.csv")[0] == {"study_id": "50000008"}
    batches = evaluate("retrieval", checkpoint, store, tmp_path / "c", "by=study", *words)
    assert "recall_at_1_within_5" in batches["metrics"]["image_to_text"]["instance_level"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["by=class"], "has no labels, which retrieval by classes"),
        (["classes=Edema,Cardiomegaly"], "has no labels, which retrieval by classes"),
        (["by=study", "per_class=4"], "per_class is not used with by=study"),
        (["by=study", "reports={plain}"], "reports is not used with by=study"),
        (["by=stdy"], "by=stdy: choose from auto, class, study"),
        (["cutoffs=0,1"], "cutoffs=0,1: must be different numbers of 1 or more"),
        (["studies=-1"], "studies=-1: must not be negative"),
        (["image_ids={ids}"], "1 of its 2 ids, CXR999, first, are not among the 17 studies"),
    ],
)
def test_wrong_use_without_labels_is_one_line(
    words: list[str],
    message: str,
    plain: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ids.txt").write_text(f"{TEST_NAMES[3]}\nCXR999\n")
    words = [word.format(plain=plain, ids=tmp_path / "ids.txt") for word in words]
    error = refused("retrieval", checkpoint, plain, tmp_path / "out", capsys, *words)
    assert message.replace("CXR999, first", "CXR999 first") in error


def test_own_classes_are_those_with_a_positive_study(
    own: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate("zero-shot", checkpoint, own, tmp_path / "out")
    assert found["protocol"]["classes"] == ["Nodule", "Tuberculosis", "TB scar", "Shadow"]
    # Uncertain counts as absent, and the two studies with a shadow have another class too.
    counts = {"Nodule": 3, "Tuberculosis": 2, "TB scar": 3, "Shadow": 0}
    assert found["data"]["selected_per_class"] == found["data"]["available_per_class"] == counts
    (note,) = found["notes"]
    assert "all 2 with Shadow have another of the classes too, 2 of them Tuberculosis" in note
    assert "leave one of the two out of classes=..., or ask zero-shot for it alone (classes=Shadow)" in note
    assert "all 2 with Shadow" in " ".join(capsys.readouterr().out.split())
    assert found["metrics"]["auroc"]["Shadow"]["value"] is None
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert Counter(row["class"] for row in rows) == {name: count for name, count in counts.items() if count}
    assert set(rows[0]) == {"study", "class", "predicted", *(f"score {name}" for name in counts)}
    dataset = PreparedDataset.open(own, "test")
    for row in rows:
        label = dict(zip(dataset.classes, dataset.labels[TEST_NAMES.index(row["study"])]))
        assert [name for name in counts if label[name] == 1] == [row["class"]]
    assert found["protocol"]["prompts"]["TB scar"] == ["TB scar is observed"]
    # The list that a run writes reproduces it.
    again = evaluate(
        "zero-shot", checkpoint, own, tmp_path / "again", f"image_ids={tmp_path / 'out' / 'selection.csv'}", "seed=4"
    )
    assert again["metrics"] == found["metrics"]


def test_own_classes_are_named_in_any_case(own: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("classes=tb scar,NODULE", "pictures=false")
    found = evaluate("zero-shot", checkpoint, own, tmp_path / "out", *words)
    assert found["protocol"]["classes"] == ["TB scar", "Nodule"] and "notes" not in found
    assert found["data"]["selected_per_class"] == {"TB scar": 4, "Nodule": 3}
    retrieved = evaluate("retrieval", checkpoint, own, tmp_path / "found", *words)
    assert retrieved["protocol"]["by"] == "class" and retrieved["metrics"]["studies"] == 7
    assert retrieved["metrics"]["image_to_text"]["class_level"]["precision_at_1"]["chance"] == pytest.approx(25 / 49)


@pytest.mark.parametrize("name", ["Tuberculosis", "shadow"])
def test_one_own_class_is_present_or_not(name: str, own: Path, checkpoint: Path, tmp_path: Path) -> None:
    found = evaluate("zero-shot", checkpoint, own, tmp_path / "out", f"classes={name}")
    label, count = name.capitalize(), {"Tuberculosis": 4, "shadow": 2}[name]
    assert found["data"]["selected_per_class"] == {label: count, f"no {label}": 17 - count}
    assert found["metrics"]["positive_share"] == pytest.approx(count / 17)
    assert found["protocol"]["prompts"][f"no {label}"] == [f"No {label} is observed"]
    assert (tmp_path / "out" / "roc.png").exists()


def test_a_dataset_of_one_own_class(
    own: Path, store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = rewrite(store, tmp_path / "single", {"Tuberculosis": own_labels(store)["Tuberculosis"]})
    found = evaluate("zero-shot", checkpoint, single, tmp_path / "out", "per_class=3", "pictures=false")
    assert found["data"]["selected_per_class"] == {"Tuberculosis": 3, "no Tuberculosis": 3}
    retrieved = evaluate("retrieval", checkpoint, single, tmp_path / "found", "pictures=false")
    assert "have one class, Tuberculosis: retrieval is by study" in retrieved["notes"][0]
    capsys.readouterr()
    error = refused("retrieval", checkpoint, single, tmp_path / "none", capsys, "by=class")
    assert "retrieval by class needs at least two; or give by=study" in error


@pytest.mark.parametrize(
    "words, message",
    [
        (["classes=Tuberculose"], "has no class 'Tuberculose': did you mean 'Tuberculosis'? It has Nodule, Tuber"),
        (["classes=Edema,Nodule"], "has no class 'Edema'. It has Nodule, Tuberculosis, TB scar, Shadow, Mass"),
        (["classes=Mass,Nodule"], "has Mass; they have Nodule 3, Tuberculosis 4, TB scar 4, Shadow 2: name other"),
        (["classes=Mass"], "none of the 17 studies of the test split"),
        (["classes=Nodule,nodule"], "each named once"),
        (["score=gloria"], "there are no words for 'Nodule'"),
        (["prompts={prompts}"], "unknown class 'Edema'"),
    ],
)
def test_wrong_own_classes_are_one_line(
    words: list[str], message: str, own: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.json").write_text('{"Edema": ["water"]}')
    words = [word.format(prompts=tmp_path / "p.json") for word in words]
    assert message in refused("zero-shot", checkpoint, own, tmp_path / "out", capsys, *words)


def test_labels_that_nothing_has(
    store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rewrite(store, tmp_path / "data", {"TB": [0.0] * 25, "Scar": [-1.0] * 25})
    error = refused("zero-shot", checkpoint, data, tmp_path / "out", capsys)
    assert "has TB or Scar; they have none of the labels" in error
    found = evaluate("retrieval", checkpoint, data, tmp_path / "out", "pictures=false")
    assert "none of the classes of their labels: retrieval is by study" in found["notes"][0]


def test_classes_that_always_occur_together(
    store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = [float(row % 2) for row in range(25)]
    data = rewrite(store, tmp_path / "data", {"TB": there, "Scar": there})
    for task in ("zero-shot", "retrieval"):
        error = refused(task, checkpoint, data, tmp_path / "out", capsys)
        assert "exactly one of TB, Scar: name fewer or other classes=..." in error and "classes=TB)" in error
    evaluate("zero-shot", checkpoint, data, tmp_path / "out", "classes=TB", "pictures=false")


def test_chexperts_five_among_others_stay_the_default(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    table = pq.read_table(store / "manifest.parquet")
    names = ("Edema", "Pleural Effusion", "Cardiomegaly", "Atelectasis", "Consolidation")
    labels = {"Nodule": own_labels(store)["Nodule"], **{name: table[name].to_pylist() for name in names}}
    data = rewrite(store, tmp_path / "data", labels, names=False)
    found = evaluate("zero-shot", checkpoint, data, tmp_path / "a", "pictures=false")
    usual = evaluate("zero-shot", checkpoint, store, tmp_path / "b", "pictures=false")
    assert found["metrics"] == usual["metrics"]
    assert (tmp_path / "a" / "selection.csv").read_text() == (tmp_path / "b" / "selection.csv").read_text()


def test_a_labelled_dataset_of_other_classes(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ("Hernia", "Effusion", "Infiltration", "Fibrosis")
    labels = np.zeros((12, 4))
    labels[:5, 0], labels[5:8, 1], labels[7:9, 2] = 1, 1, 1
    data = write_labelled(tmp_path / "data", classes, labels)
    found = evaluate("zero-shot", checkpoint, data, tmp_path / "out", "pictures=false")
    assert found["data"]["selected_per_class"] == {"Hernia": 5, "Effusion": 2, "Infiltration": 1}
    one = evaluate("zero-shot", checkpoint, data, tmp_path / "one", "classes=effusion", "pictures=false")
    assert one["data"]["selected_per_class"] == {"Effusion": 3, "no Effusion": 9}
    capsys.readouterr()
    error = refused("zero-shot", checkpoint, data, tmp_path / "none", capsys, "classes=Fibrosis,Hernia")
    assert "has Fibrosis; they have Hernia 5, Effusion 3, Infiltration 2" in error
    error = refused("retrieval", checkpoint, data, tmp_path / "none", capsys, "by=study")
    assert "has no reports; give a dataset with reports" in error


def test_reports_of_a_dataset_without_labels(
    store: Path, plain: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused("retrieval", checkpoint, store, tmp_path / "out", capsys, f"reports={plain}")
    assert f"{plain} has no class 'Atelectasis': it has no labels" in error


@pytest.mark.parametrize("task", ["generation", "bank"])
def test_what_the_decoders_learned_without_labels_and_annotations(
    task: str, plain: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(task, checkpoint, plain, tmp_path / "out")["metrics"]
    if task == "generation":
        assert found["reconstruction"]["measured"] == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "reconstruction: left out, no annotated finding" in shown and "have no annotations" in shown
        assert found["generated_prototypes"]["images"] == 17
    else:
        assert found["every_sentence"]["purity"]["finding"]["value"] is not None


def test_long_names_keep_their_beginning() -> None:
    assert shortened("CXR12_IM-0001", 13) == "CXR12_IM-0001" and shortened("CXR12_IM-0001", 8) == "CXR12..."
