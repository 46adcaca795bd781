"""The settings of semantic segmentation (supplement 3.4). They are checked before torch is loaded."""

from dataclasses import dataclass

from prior_fast.downstream.settings.base import FineTuneConfig, Preset
from prior_fast.errors import UsageError

HELP = "fine-tune a U-Net on the image encoder; Dice"
SETTINGS = """  frozen=true|false    train the decoder alone (false)
  decoder_channels=A,B,C,D,E
                       of the U-Net (256,128,64,32,16)
"""
# Table 2 of the supplement, by dataset and percent.
PRESETS: dict[str, dict[int, Preset]] = {
    "siim": {100: Preset(1e-3, 50, 128), 10: Preset(1e-4, 50, 128), 1: Preset(1e-4, 100, 16)},
}
# The prefix of the names of PRIOR's splits: five folds of the positive images (issue 12 of QtacierP/PRIOR).
SPLITS = "folds-"
# The dataset whose presets are used for datasets that are not in the table. It is also the example of --help.
FALLBACK = "siim"


@dataclass(frozen=True)
class SegmentationConfig(FineTuneConfig):
    """Semantic segmentation (supplement 3.4).

    Attributes:
        frozen: train only the decoder.
        decoder_channels: channels of the U-Net at strides 16, 8, 4, 2, 1. The default is that of
            segmentation_models_pytorch.
    """

    frozen: bool = False
    decoder_channels: tuple[int, int, int, int, int] = (256, 128, 64, 32, 16)

    def check(self) -> None:
        """Refuse invalid values.

        Raises:
            UsageError: a value is invalid; the message names the setting.
        """
        super().check()
        if min(self.decoder_channels) < 1:
            raise UsageError("decoder_channels: must be at least 1 at each stride")


CONFIG = SegmentationConfig
