"""The fine-tuned tasks from made-up DICOM files to their metrics, as a user runs them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main

Evaluate = Callable[..., int]
STEPS = ["max_steps=2", "batch_size=4", "percent=10"]
SMALL = {
    "classification": ["splits=prior-0,prior-1"],
    "segmentation": ["splits=folds-0", "decoder_channels=8,8,8,8,8"],
    "detection": ["splits=folds-0", "pyramid_channels=16", "head_width=16", "proposals=16"],
}
METRICS = {
    "classification": {"auroc", "auroc/Pneumonia", "accuracy_at_0.5"},
    "segmentation": {"dice_positives", "dice_all", "mdice"},
    "detection": {"map_50_95", "map_40_75", "ap_50"},
}


@pytest.fixture(scope="module")
def prepared(shared_folder: Callable[[str, Callable[[Path], Any]], Path]) -> dict[str, Path]:
    """Datasets of 60 made-up studies in the layouts of RSNA and SIIM-ACR."""

    def make(root: Path) -> None:
        for layout in ("rsna", "siim"):
            made = str(root / layout)
            words = ["--studies", "60", "--size", "128", "--seed", "3", "--workers", "1"]
            assert main(["phantom", "--layout", layout, "--out", made, *words]) == 0
            assert main(["prepare", layout, "--images", made, "--out", f"{made}-prepared", "--workers", "1"]) == 0

    root = shared_folder("labelled", make)
    return {layout: root / f"{layout}-prepared" for layout in ("rsna", "siim")}


@pytest.mark.parametrize(
    ("task", "layout"),
    [("classification", "rsna"), ("segmentation", "siim"), ("segmentation", "rsna"), ("detection", "rsna")],
)
def test_a_task(task: str, layout: str, prepared: dict[str, Path], evaluate: Evaluate, tmp_path: Path) -> None:
    assert evaluate(task, prepared[layout], tmp_path / "out", *STEPS, *SMALL[task]) == 0
    report = json.loads((tmp_path / "out/metrics.json").read_text())
    splits = SMALL[task][0].removeprefix("splits=").split(",")
    assert list(report["splits"]) == splits
    assert METRICS[task] <= report["metrics"].keys()
    for name in METRICS[task]:
        values = report["metrics"][name]["values"]
        assert all(value is None or (math.isfinite(value) and 0 <= value <= 1) for value in values.values())
    for split in splits:
        own = report["splits"][split]
        assert own["steps"] == 2 and own["images"]["test"] > 0
        predictions = (tmp_path / "out" / split / "predictions.csv").read_text().splitlines()
        # Detection has a line for each box.
        assert task == "detection" or len(predictions) == 1 + own["images"]["test"]
