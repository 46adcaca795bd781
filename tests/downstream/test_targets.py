"""Settings, presets, and the requirements of the tasks on datasets."""

from pathlib import Path

import numpy as np
import pytest

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.config import find_preset, task_config
from prior_fast.downstream.images import draw_flips, epoch_order
from prior_fast.downstream.targets import box_truth, choose_classes, choose_splits, class_truth, mask_truth
from prior_fast.errors import UsageError
from prior_fast.radiology.labels import FIVE_CLASSES
from tests.downstream.fake_dataset import write_labels

NAN = float("nan")


@pytest.mark.parametrize(
    "task, dataset, percent, cell",
    [
        ("classification", "rsna", 1, (1e-4, 10, 64)),
        ("classification", "siim", 100, (1e-5, 5, 64)),
        ("classification", "chexpert", 100, (1e-6, 5, 256)),
        ("segmentation", "siim", 1, (1e-4, 100, 16)),
        ("segmentation", "rsna", 100, (1e-3, 50, 128)),
        ("detection", "rsna", 10, (1e-4, 20, 16)),
        ("detection", "rsna", 100, (5e-5, 20, 16)),
    ],
)
def test_the_supplements_settings(task: str, dataset: str, percent: int, cell: tuple[float, int, int]) -> None:
    config = task_config(task, [f"percent={percent}"], dataset)
    assert (config.learning_rate, config.epochs, config.batch_size) == cell
    assert task_config(task, [f"percent={percent}", "epochs=3"], dataset).epochs == 3


def test_cells_that_the_tables_do_not_have_are_marked() -> None:
    assert find_preset("segmentation", "siim", 10).source == "supplement"
    assert find_preset("segmentation", "rsna", 10).source == "our choice"
    assert find_preset("detection", "rsna", 100).source == "our choice"


@pytest.mark.parametrize(
    "task, word, message",
    [
        ("classification", "percent=5", "percent=5: choose from 1, 10, 100"),
        ("classification", "blocks=5", "blocks=5: must be 0 to 4"),
        ("classification", "pool=max", "pool=max: choose from average, attention"),
        ("classification", "frozen=true", "unknown setting 'frozen'"),
        ("segmentation", "blocks=1", "unknown setting 'blocks'"),
        ("segmentation", "split=folds-0", "unknown setting 'split': did you mean 'splits'?"),
        ("segmentation", "decoder_channels=8,8,8,8,0", "decoder_channels"),
        ("detection", "proposals=0", "proposals=0: must be at least 1"),
        ("detection", "learning_rate=nan", "learning_rate=nan"),
        ("detection", "learning_rate=0", "learning_rate=0.0: must be more than 0"),
        ("detection", "weight_decay=-1", "weight_decay=-1.0: must not be negative"),
        ("detection", "seed=-1", "seed=-1"),
        ("detection", "seed=4294967296", "seed=4294967296: must be less than"),
        ("detection", "splits=a,a", "splits=a,a: each must be named only once"),
    ],
)
def test_settings_that_can_not_be_used(task: str, word: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        task_config(task, [word])
    assert message in str(raised.value)


def test_splits(squares: Path) -> None:
    dataset = LabelledDataset.open(squares)
    assert choose_splits(dataset, "classification", ()) == ("prior-0", "prior-1")
    assert choose_splits(dataset, "detection", ()) == ("folds-0", "folds-1")
    assert choose_splits(dataset, "detection", ["mixed"]) == ("mixed",)
    with pytest.raises(UsageError, match=r"splits=fold-0: .* no such split: did you mean 'folds-0'"):
        choose_splits(dataset, "detection", ["fold-0"])


def test_chexperts_classes_and_uncertain_labels(tmp_path: Path) -> None:
    classes = ("Fracture", *FIVE_CLASSES)
    labels = np.array([[1, 1, 0, 0, 0, 0], [NAN, NAN, NAN, NAN, NAN, NAN], [-1] * 6, [0, 0, 1, 0, 0, 1]])
    dataset = LabelledDataset.open(write_labels(tmp_path / "data", classes, labels, 2, 1))
    chosen = choose_classes(dataset, ())
    assert chosen == FIVE_CLASSES and choose_classes(dataset, ["Fracture"]) == ("Fracture",)
    # Atelectasis, Cardiomegaly, Consolidation, Edema, Pleural Effusion
    assert class_truth(dataset, chosen).astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 1, 1],
        [0, 1, 0, 0, 1],
    ]
    assert not class_truth(dataset, ["Fracture"])[2, 0]
    with pytest.raises(UsageError, match=r"classes=Fractures: .* did you mean 'Fracture'"):
        choose_classes(dataset, ["Fractures"])
    with pytest.raises(UsageError, match="has none of PRIOR's splits for segmentation"):
        choose_splits(dataset, "segmentation", ())
    with pytest.raises(UsageError, match="has no masks"):
        mask_truth(dataset, np.arange(4))
    with pytest.raises(UsageError, match="has no boxes"):
        box_truth(dataset, np.arange(4))


def test_masks_and_boxes_mark_the_squares(squares: Path) -> None:
    dataset = LabelledDataset.open(squares)
    rows = np.array([1, 2])
    masks, boxes = mask_truth(dataset, rows), box_truth(dataset, rows)
    assert masks.shape == (48, 224, 224) and masks[1].sum() == 64 * 64 and not masks[2].any() and not masks[3].any()
    x1, y1, x2, y2 = boxes[1][0].astype(int)
    assert masks[1, y1:y2, x1:x2].all() and (x2 - x1, y2 - y1) == (64, 64) and boxes[2].shape == (0, 4)


def test_orders_depend_on_seed_and_epoch() -> None:
    rows = np.arange(50, 80)
    first = epoch_order(rows, 1, 2)
    assert sorted(first) == list(rows) and np.array_equal(first, epoch_order(rows, 1, 2))
    assert not np.array_equal(first, epoch_order(rows, 1, 3)) and not np.array_equal(first, epoch_order(rows, 2, 2))
    assert np.array_equal(draw_flips(64, 0, 5), draw_flips(64, 0, 5))
    assert 10 < draw_flips(64, 0, 5).sum() < 54
