"""Semantic segmentation (supplement 3.4): U-Net on the encoder, Dice loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base import SegmentationHead, initialization
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.backbone import FeatureResNet, freeze
from prior_fast.downstream.images import ResidentImages, as_images, batches, mirror
from prior_fast.downstream.localization import LocalizationTask
from prior_fast.downstream.metrics.dice import FORMULAS, dice_metrics, image_dice
from prior_fast.downstream.pictures import EXAMPLES, draw_masks
from prior_fast.downstream.settings.segmentation import SegmentationConfig
from prior_fast.downstream.targets import mask_truth
from prior_fast.downstream.task import Advance, Measured, Table, no_advance, refuse_odd
from prior_fast.radiology.normalize import normalize


class UNet(nn.Module):
    """segmentation_models_pytorch's U-Net on our encoder. With a ResNet-50 it has the parameter names of `smp.Unet`."""

    def __init__(self, encoder: FeatureResNet, decoder_channels: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = UnetDecoder(encoder_channels=encoder.feature_channels, decoder_channels=decoder_channels)
        self.segmentation_head = SegmentationHead(decoder_channels[-1], 1, kernel_size=3)
        initialization.initialize_decoder(self.decoder)
        initialization.initialize_head(self.segmentation_head)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, 224, 224] -> logits [B, 1, 224, 224]."""
        return self.segmentation_head(self.decoder(self.encoder(images)))


class Segmentation(LocalizationTask):
    """`prior_fast.downstream.task.Task` for masks.

    used: the rows of all splits of the run. Their masks are read once.

    Raises:
        UsageError: the dataset has no masks.
    """

    selects, marked = "dice_positives", "a mask"

    config: SegmentationConfig

    def read_annotations(self, dataset: LabelledDataset, used: np.ndarray) -> Sequence[bool]:
        """The masks, which stay on the device."""
        truth = mask_truth(dataset, used)
        self.masks = ResidentImages(truth, self.device)
        self.dice_loss = smp.losses.DiceLoss("binary", from_logits=True)
        return [bool(truth[row].any()) for row in used]

    def build(self) -> tuple[nn.Module, list[nn.Module]]:
        """The U-Net, and its encoder if it is frozen."""
        encoder = self.pretrained.load(self.config.weights, self.config.seed)
        image = self.pretrained.image
        torch.manual_seed(self.config.seed)
        features = FeatureResNet.from_encoder(encoder, image.depths, image.width, image.shrink)
        model = UNet(features, self.config.decoder_channels)
        frozen: list[nn.Module] = [model.encoder] if self.config.frozen else []
        freeze(frozen)
        return model, frozen

    def loss(self, model: nn.Module, rows: np.ndarray, flips: np.ndarray | None) -> Tensor:
        """1 - Dice of the probabilities, over all pixels of the batch together; 0 for a batch without a mask."""
        masks = self.masks.take(rows)
        masks = (masks if flips is None else mirror(masks, flips))[:, None].float()
        return self.dice_loss(self._logits(model, rows, flips), masks)

    @torch.inference_mode()
    def predict(self, model: nn.Module, rows: np.ndarray, advance: Advance = no_advance) -> np.ndarray:
        """Pixels in both masks, predicted, and true: int64 [len(rows), 3]."""
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        parts = [torch.empty(0, 3, dtype=torch.int64, device=self.device)]
        for batch in batches(rows, self.config.batch_size):
            logits = self._logits(model, batch, None)[:, 0]
            finite &= logits.isfinite().all()
            predicted = logits > 0  # the logit of 0.5
            true = self.masks.take(batch).bool()
            counts = [mask.flatten(1).sum(dim=1) for mask in (predicted & true, predicted, true)]
            parts.append(torch.stack(counts, dim=1))
            advance(len(batch))
        refuse_odd(bool(finite))
        return torch.cat(parts).cpu().numpy()

    def measure(self, predictions: np.ndarray, rows: np.ndarray) -> Measured:
        """`dice_metrics`."""
        return dice_metrics(predictions)

    def table(self, predictions: np.ndarray, rows: np.ndarray) -> Table:
        """Image, its Dice, and the pixel counts from which it is computed."""
        lines: list[Sequence[Any]] = [
            [self.image_ids[row], f"{score:.6f}", *counts]
            for row, score, counts in zip(rows.tolist(), image_dice(predictions).tolist(), predictions.tolist())
        ]
        return ("image_id", "dice", "pixels_in_both", "pixels_predicted", "pixels_true"), lines

    def draw(self, model: nn.Module, predictions: np.ndarray, rows: np.ndarray, folder: Path) -> None:
        """Draw masks.png: the first images that have a mask, if there are any."""
        shown = rows[self.present[rows]][:EXAMPLES]
        if not len(shown):
            return
        with torch.inference_mode():
            predicted = (self._logits(model, shown, None)[:, 0] > 0).cpu().numpy()
        scores = image_dice(predictions)[self.present[rows]][:EXAMPLES]
        images, true = self.images.array[shown], self.masks.array[shown].astype(bool)
        draw_masks(images, true, predicted, scores, folder / "masks.png")

    def facts(self) -> dict[str, Any]:
        """The network, the loss and the formulas."""
        return {
            "network": "U-Net of segmentation_models_pytorch",
            "loss": "1 - Dice of the probabilities, over the pixels of a batch together",
            "threshold": 0.5,
            "metrics": FORMULAS,
        }

    def _logits(self, model: nn.Module, rows: np.ndarray, flips: np.ndarray | None) -> Tensor:
        pixels = self.images.take(rows)
        images = as_images(pixels if flips is None else mirror(pixels, flips))
        return model(normalize(images, self.pretrained.image_mean, self.pretrained.image_std)).float()


TASK = Segmentation
