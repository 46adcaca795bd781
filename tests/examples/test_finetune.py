import argparse
import copy
import csv
import math
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

import prior_fast
from prior_fast.cli.main import main
from tests.small_model import SMALL_MODEL

LABELS = ["Cardiomegaly", "Edema"]


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("finetune")


@pytest.fixture(scope="module")
def checkpoint(small_store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finetune") / "run"
    words = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(out), "--stop-after", "1"]
    assert main([*words, "batch_size=8", "device=cpu", *SMALL_MODEL]) == 0
    return out


@pytest.fixture
def arguments(small_store, checkpoint, tmp_path) -> argparse.Namespace:
    """The X-rays of the small dataset, with labels by turns."""
    images = small_store.parent / "phantom"
    paths = sorted(path.relative_to(images).as_posix() for path in images.glob("files/**/*.jpg"))[:24]
    rows = [(path, f"p{number // 2}", number % 2, ("1.0", "", "-1")[number % 3]) for number, path in enumerate(paths)]
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "person", *LABELS), *rows])
    return argparse.Namespace(
        checkpoint=checkpoint,
        table=tmp_path / "labels.csv",
        test_table=None,
        images=images,
        image="file",
        patient="person",
        labels=LABELS,
        limit=None,
        epochs=1,
        batch=8,
        learning_rate=1e-3,
        seed=0,
        device="cpu",
        save=tmp_path / "classifier.pt",
    )


def scores_of(text: str) -> dict[str, list[float]]:
    """Label -> its three AUROCs, from the printed table."""
    rows = re.findall(r"^(\w[\w ]*?) {2,}([\d.]+|nan) +([\d.]+|nan) +([\d.]+|nan)$", text, re.MULTILINE)
    return {label: [float(value) for value in values] for label, *values in rows}


def test_three_classifiers_are_compared(example, arguments, capsys):
    example.compare(arguments)
    scores = scores_of(capsys.readouterr().out)
    assert list(scores) == [*LABELS, "mean"]
    assert all(0 <= value <= 1 for row in scores.values() for value in row)
    saved = torch.load(arguments.save, weights_only=True)
    start = prior_fast.PRIOR.from_pretrained(arguments.checkpoint, "cpu").encoder.model.image_encoder.state_dict()
    assert saved["labels"] == LABELS
    moved = (saved["state"]["encoder.encoder.conv1.weight"] - start["encoder.conv1.weight"]).abs().max()
    assert 0 < moved < 0.05  # it began at the checkpoint's weights


@pytest.mark.parametrize("frozen", [True, False])
def test_only_what_is_to_be_trained_changes(example, arguments, frozen):
    pretrained = prior_fast.PRIOR.from_pretrained(arguments.checkpoint, "cpu").encoder
    model = example.Classifier(copy.deepcopy(pretrained.model.image_encoder), len(LABELS))
    before = copy.deepcopy(model.state_dict())
    data = Subset(example.XRays(arguments.table, arguments), range(8))
    example.train(model, data, pretrained.normalized, arguments, frozen=frozen)
    same = {name: torch.equal(value, before[name]) for name, value in model.state_dict().items()}
    assert not same["head.weight"]
    assert all(value == frozen for name, value in same.items() if name.endswith(("conv1.weight", "running_mean")))


def test_patients_are_not_divided(example, arguments):
    data = example.XRays(arguments.table, arguments)
    train, test = ({data.patients[row] for row in part.indices} for part in example.split_by_patient(data))
    assert train and test and not train & test and train | test == set(data.patients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "path"}, "has no column 'path'; it has file, person, Cardiomegaly, Edema"),
        ({"labels": ["person"]}, "row 1: person is 'p0'; give 1, 0, -1 or blank"),
    ],
)
def test_wrong_tables_are_refused(example, arguments, change, message):
    with pytest.raises(prior_fast.errors.UsageError, match=message):
        example.XRays(arguments.table, argparse.Namespace(**{**vars(arguments), **change}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --checkpoint, --table and --labels, or --made-up"),
        (("--checkpoint", "nowhere", "--table", "a.csv", "--labels", "A"), "no checkpoint at nowhere"),
    ],
)
def test_wrong_arguments_end_with_one_line(run_example, words, message):
    done = run_example("finetune", *words)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_runs_alone(run_example, tmp_path):
    done = run_example("finetune", "--made-up", "--studies", "160", "--epochs", "2", "--save", "classifier.pt")
    assert done.returncode == 0, done.stderr
    scores = scores_of(done.stdout)
    assert len(scores) == 6
    assert all(math.isfinite(value) and 0 <= value <= 1 for row in scores.values() for value in row)
    assert [path.name for path in tmp_path.iterdir()] == ["classifier.pt"]
