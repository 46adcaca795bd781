"""The paper's Figure 3: AUROC against the number of the encoder's blocks that are trained."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prior_fast.console import print_table, stdout
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.claim import claim, describe
from prior_fast.downstream.pictures import draw_sweep
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.settings.classification import ClassificationConfig
from prior_fast.downstream.splits import make_ready, run_splits
from prior_fast.files import write_json

METRIC = "auroc"


def sweep_blocks(
    pretrained: Pretrained,
    dataset: LabelledDataset,
    config: ClassificationConfig,
    out: Path,
    asked_to_stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Classification with 0, 1, ... and all of the encoder's blocks trained, each in a folder `blocks-N` of `out`.

    Writes sweep.json and sweep.png.

    Returns:
        The content of sweep.json; None if the run was stopped before the end.
    """
    stages = len(pretrained.image.depths)
    first = dataclasses.replace(config, sweep="none", blocks=0)
    make_ready("classification", pretrained, dataset, first)  # refuses unsuitable inputs before anything is written
    claim(out, describe("classification", config, pretrained, dataset))
    points = []
    for blocks in range(stages + 1):
        each = dataclasses.replace(config, sweep="none", blocks=blocks)
        result = run_splits("classification", pretrained, dataset, each, out / f"blocks-{blocks}", asked_to_stop)
        if result is None:
            return None
        points.append({"blocks": blocks, **result["metrics"][METRIC]})
    swept = {
        "task": "classification",
        "sweep": "blocks",
        "metric": METRIC,
        "blocks": f"the encoder's last stages that are trained: 0 the linear layer alone, {stages} everything",
        "data": {"path": str(dataset.root), "name": dataset.name, "percent": config.percent},
        "points": points,
    }
    write_json(out / "sweep.json", swept)
    title = f"{dataset.name}, {config.percent} % of the training images"
    draw_sweep(points, METRIC, title, out / "sweep.png")
    rows = [(point["blocks"], *(_number(point[key]) for key in ("mean", "std")), point["splits"]) for point in points]
    print_table(f"AUROC by trained blocks: {title}", ("blocks", "mean", "std", "splits"), rows)
    stdout.print(f"sweep.json, sweep.png and a folder for each number of blocks are in {out}")
    return swept


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
