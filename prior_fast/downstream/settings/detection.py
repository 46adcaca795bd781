"""The settings of object detection (supplement 3.5); light, since they are checked before torch is loaded."""

from dataclasses import dataclass

from prior_fast.downstream.settings.base import OURS, FineTuneConfig, Preset, at_least_1

HELP = "fine-tune a Faster R-CNN on the image encoder; mean average precision"
SETTINGS = """  frozen=true|false    leave the encoder as it is (false)
  pyramid_channels=N head_width=N proposals=N
                       sizes of Faster R-CNN (256, 1024, 512)
"""
# Table 2 of the supplement, by dataset and percent.
PRESETS: dict[str, dict[int, Preset]] = {
    # The table gives no epochs for 100 %: those of 10 % are taken.
    "rsna": {100: Preset(5e-5, 20, 16, OURS), 10: Preset(1e-4, 20, 16), 1: Preset(1e-4, 5, 16)},
}
# What the names of the paper's splits begin with: five folds of the positive images.
SPLITS = "folds-"
# The dataset whose presets serve for those that the table does not have; the example of --help names it.
FALLBACK = "rsna"


@dataclass(frozen=True)
class DetectionConfig(FineTuneConfig):
    """Object detection (supplement 3.5). The sizes of Faster R-CNN's own parts are torchvision's.

    Attributes:
        frozen: leave the encoder as it is.
        pyramid_channels: of the feature pyramid.
        head_width: of the two layers that look at a proposal.
        proposals: boxes of an image that the second stage is trained on.
    """

    frozen: bool = False
    pyramid_channels: int = 256
    head_width: int = 1024
    proposals: int = 512

    def check(self) -> None:
        """Refuse values that no run can use.

        Raises:
            UsageError: one of them; names the setting.
        """
        super().check()
        at_least_1(self, "pyramid_channels", "head_width", "proposals")


CONFIG = DetectionConfig
