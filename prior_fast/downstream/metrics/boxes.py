"""Mean average precision of detected boxes, over the two ranges of IoU thresholds that papers report."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.detection.mean_ap import MeanAveragePrecision

from prior_fast.downstream.task import Measured

Detections = dict[str, Tensor]
RANGES: dict[str, list[float]] = {
    "map_50_95": [round(0.5 + 0.05 * step, 2) for step in range(10)],
    "map_40_75": [round(0.4 + 0.05 * step, 2) for step in range(8)],
    "ap_50": [0.5],
}
FORMULAS = {
    "map_50_95": "mean over the IoU thresholds 0.5, 0.55, ..., 0.95 of COCO's average precision (PRIOR)",
    "map_40_75": "the same over 0.4, 0.45, ..., 0.75 (MGCA, LoVT)",
    "ap_50": "average precision at IoU 0.5",
}


def box_metrics(detections: Sequence[Detections], truth: Sequence[Tensor]) -> Measured:
    """The metrics of `FORMULAS` for one class of boxes. The 100 boxes of an image with the highest scores count.

    detections: for each image "boxes" float32 [D, 4] (x1, y1, x2, y2) and "scores" float32 [D]; truth: [K, 4]. Boxes
    in images without a true box count as false. Without any true box all metrics are None.
    """
    if not any(len(boxes) for boxes in truth):
        return Measured(dict.fromkeys(RANGES), dict.fromkeys(RANGES, "no image with a box"))
    values: dict[str, float | None] = {}
    for name, thresholds in RANGES.items():
        metric = MeanAveragePrecision(iou_thresholds=thresholds)
        metric.update(
            [{**found, "labels": torch.zeros(len(found["scores"]), dtype=torch.int64)} for found in detections],
            [{"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)} for boxes in truth],
        )
        values[name] = float(metric.compute()["map"])
    return Measured(values)
