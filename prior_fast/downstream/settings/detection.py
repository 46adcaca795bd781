"""The settings of object detection (supplement 3.5). They are checked before torch is loaded."""

from dataclasses import dataclass

from prior_fast.config.setting import setting
from prior_fast.downstream.settings.base import OURS, FineTuneConfig, Preset, at_least_1

HELP = "fine-tune a Faster R-CNN on the image encoder; mean average precision"
# Table 2 of the supplement, by dataset and percent.
PRESETS: dict[str, dict[int, Preset]] = {
    # The table gives no epochs for 100 %: those of 10 % are taken.
    "rsna": {100: Preset(5e-5, 20, 16, OURS), 10: Preset(1e-4, 20, 16), 1: Preset(1e-4, 5, 16)},
}
# The prefix of the names of PRIOR's splits: five folds of the positive images (issue 12 of QtacierP/PRIOR).
SPLITS = "folds-"
# The dataset whose presets are used for datasets that are not in the table. It is also the example of --help.
FALLBACK = "rsna"


@dataclass(frozen=True)
class DetectionConfig(FineTuneConfig):
    """Object detection (supplement 3.5). The sizes of Faster R-CNN's own parts are torchvision's."""

    frozen: bool = setting(False, "whether the encoder is left as it is, not trained")
    pyramid_channels: int = setting(256, "channels of the feature pyramid")
    head_width: int = setting(1024, "width of the two layers that process a proposal")
    proposals: int = setting(512, "boxes of an image on which the second stage is trained")

    def check(self) -> None:
        """Refuse invalid values.

        Raises:
            UsageError: a value is invalid; the message names the setting.
        """
        super().check()
        at_least_1(self, "pyramid_channels", "head_width", "proposals")


CONFIG = DetectionConfig
