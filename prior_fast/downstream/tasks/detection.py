"""Object detection: Faster R-CNN with its own losses (supplement 3.5), on the encoder.

It is torchvision's, with a feature pyramid; the supplement names neither.

Pixels, boxes and anchors are those of the 224x224 image. The encoder's batch statistics are trained, unlike
torchvision's frozen ones, because an encoder with random weights has none to freeze.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.data.packing import to_device
from prior_fast.downstream.backbone import FeatureResNet, freeze
from prior_fast.downstream.images import as_images, batches, mirror
from prior_fast.downstream.localization import LocalizationTask
from prior_fast.downstream.metrics.boxes import FORMULAS, Detections, box_metrics
from prior_fast.downstream.pictures import EXAMPLES, draw_boxes
from prior_fast.downstream.settings.detection import DetectionConfig
from prior_fast.downstream.targets import SIDE, box_truth
from prior_fast.downstream.task import Advance, Measured, Table, no_advance, refuse_odd

LEVELS = 4  # the encoder's maps at strides 4, 8, 16, 32; the pyramid adds one at 64
# Sides of the anchors at each level in pixels, four strides wide; the last is the whole image.
ANCHORS = ((16,), (32,), (64,), (128,), (224,))
RATIOS = ((0.5, 1.0, 2.0),) * len(ANCHORS)
POOLED = 7


class Pyramid(nn.Module):
    """The encoder's maps at strides 4 to 32 and a feature pyramid over them."""

    def __init__(self, encoder: FeatureResNet, channels: int) -> None:
        super().__init__()
        self.body = encoder
        self.fpn = FeaturePyramidNetwork(list(encoder.feature_channels[-LEVELS:]), channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, 1, 224, 224] -> maps of `channels` by level, "0" to "3" and "pool"."""
        maps = self.body(images)[-LEVELS:]
        return self.fpn({str(level): x for level, x in enumerate(maps)})


class ProposalHead(RPNHead):
    """torchvision's head with float32 results: boxes decoded in bfloat16 would be rounded to whole pixels.

    Attributes:
        finite: in evaluation, for each batch whether its results were finite. torchvision leaves others out silently.
    """

    finite: tuple[Tensor, ...] = ()

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of all levels -> objectness and box regressions of each."""
        objectness, boxes = super().forward(x)
        if not self.training:
            self.finite += (torch.stack([each.isfinite().all() for each in (*objectness, *boxes)]).all(),)
        return [each.float() for each in objectness], [each.float() for each in boxes]


class BoxPredictor(FastRCNNPredictor):
    """torchvision's predictor, in float32 for the same reason; `finite` is as that of `ProposalHead`."""

    finite: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[R, head_width] -> class logits [R, 2] and box regressions [R, 8]."""
        with torch.autocast(x.device.type, enabled=False):
            logits, boxes = super().forward(x.float())
        if not self.training:
            self.finite += (logits.isfinite().all() & boxes.isfinite().all(),)
        return logits, boxes


def make_detector(encoder: FeatureResNet, config: DetectionConfig, mean: float, std: float) -> FasterRCNN:
    """Faster R-CNN for one class; it takes images in [0, 1] and normalizes them with `mean` and `std`."""
    backbone = Pyramid(encoder, config.pyramid_channels)
    anchors = AnchorGenerator(ANCHORS, RATIOS)
    return FasterRCNN(
        backbone,
        min_size=SIDE,
        max_size=SIDE,
        image_mean=[mean],
        image_std=[std],
        rpn_anchor_generator=anchors,
        rpn_head=ProposalHead(config.pyramid_channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=MultiScaleRoIAlign([str(level) for level in range(LEVELS)], POOLED, sampling_ratio=2),
        box_head=TwoMLPHead(config.pyramid_channels * POOLED**2, config.head_width),
        box_predictor=BoxPredictor(config.head_width, 2),
        box_batch_size_per_image=config.proposals,
        # The images already have the right size.
        _skip_resize=True,
    )


class Detection(LocalizationTask):
    """`prior_fast.downstream.task.Task` for boxes.

    used: the rows of all splits of the run. Their boxes are read once.

    Raises:
        UsageError: the dataset has no boxes.
    """

    selects, marked = "map_50_95", "a box"

    config: DetectionConfig

    def read_annotations(self, dataset: LabelledDataset, used: np.ndarray) -> Sequence[bool]:
        """The boxes, which stay on the device."""
        self.truth = box_truth(dataset, used)
        self.boxes = {row: to_device(boxes, self.device) for row, boxes in self.truth.items()}
        return [len(self.truth[row]) > 0 for row in used.tolist()]

    def build(self) -> tuple[nn.Module, list[nn.Module]]:
        """The detector, and its encoder if it is frozen."""
        encoder = self.pretrained.load(self.config.weights, self.config.seed)
        image = self.pretrained.image
        features = FeatureResNet.from_encoder(encoder, image.depths, image.width, image.shrink)
        torch.manual_seed(self.config.seed)
        model = make_detector(features, self.config, self.pretrained.image_mean, self.pretrained.image_std)
        frozen: list[nn.Module] = [features] if self.config.frozen else []
        freeze(frozen)
        return model, frozen

    def loss(self, model: nn.Module, rows: np.ndarray, flips: np.ndarray | None) -> Tensor:
        """The sum of Faster R-CNN's four losses: objectness and class, and both stages' box regressions."""
        pixels = self.images.take(rows)
        targets = []
        for index, row in enumerate(rows.tolist()):
            boxes = self.boxes[row]
            if flips is not None and flips[index]:
                boxes = torch.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], dim=1)
            labels = torch.ones(len(boxes), dtype=torch.int64, device=self.device)
            targets.append({"boxes": boxes, "labels": labels})
        images = as_images(pixels if flips is None else mirror(pixels, flips))
        losses: dict[str, Tensor] = model(list(images), targets)
        return torch.stack(list(losses.values())).sum()

    @torch.inference_mode()
    def predict(self, model: nn.Module, rows: np.ndarray, advance: Advance = no_advance) -> list[Detections]:
        """For each row "boxes" float32 [D, 4] (x1, y1, x2, y2) and "scores" float32 [D], the highest first."""
        found: list[Detections] = []
        heads = [module for module in model.modules() if isinstance(module, (ProposalHead, BoxPredictor))]
        for head in heads:
            head.finite = ()
        for batch in batches(rows, self.config.batch_size):
            outputs = model(list(as_images(self.images.take(batch))))
            found += [{name: output[name].float().cpu() for name in ("boxes", "scores")} for output in outputs]
            advance(len(batch))
        refuse_odd(all(bool(torch.stack(head.finite).all()) for head in heads if head.finite))
        return found

    def measure(self, predictions: list[Detections], rows: np.ndarray) -> Measured:
        """`box_metrics`."""
        return box_metrics(predictions, [torch.from_numpy(self.truth[row]) for row in rows.tolist()])

    def table(self, predictions: list[Detections], rows: np.ndarray) -> Table:
        """A line for each detected box: image, x, y, width, height, score."""
        lines: list[Sequence[Any]] = []
        for row, found in zip(rows.tolist(), predictions):
            for (x1, y1, x2, y2), score in zip(found["boxes"].tolist(), found["scores"].tolist()):
                sizes = (x1, y1, x2 - x1, y2 - y1)
                lines.append([self.image_ids[row], *(f"{value:.3f}" for value in sizes), f"{score:.6f}"])
        return ("image_id", "x", "y", "width", "height", "score"), lines

    def draw(self, model: nn.Module, predictions: list[Detections], rows: np.ndarray, folder: Path) -> None:
        """Draw boxes.png: the first images that have a box, if there are any."""
        chosen = [index for index, row in enumerate(rows.tolist()) if len(self.truth[row])][:EXAMPLES]
        if not chosen:
            return
        found = [(predictions[i]["boxes"].numpy(), predictions[i]["scores"].numpy()) for i in chosen]
        true = [self.truth[int(rows[i])] for i in chosen]
        draw_boxes(self.images.array[rows[chosen]], true, found, folder / "boxes.png")

    def facts(self) -> dict[str, Any]:
        """The network and the formulas."""
        return {
            "network": "Faster R-CNN of torchvision with a feature pyramid, one class",
            "anchors": {"sides": [side for (side,) in ANCHORS], "height_over_width": list(RATIOS[0])},
            "loss": "Faster R-CNN's",
            "metrics": FORMULAS,
        }


TASK = Detection
