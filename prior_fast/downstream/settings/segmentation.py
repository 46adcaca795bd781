"""The settings of semantic segmentation (supplement 3.4). They are checked before torch is loaded."""

from dataclasses import dataclass

from prior_fast.config.setting import setting
from prior_fast.downstream.settings.base import FineTuneConfig, Preset
from prior_fast.errors import UsageError

HELP = "fine-tune a U-Net on the image encoder; Dice"
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
    """Semantic segmentation (supplement 3.4)."""

    frozen: bool = setting(False, "whether only the decoder is trained")
    decoder_channels: tuple[int, int, int, int, int] = setting(
        (256, 128, 64, 32, 16),
        "channels of the U-Net at strides 16, 8, 4, 2, 1; the default is that of segmentation_models_pytorch",
    )

    def check(self) -> None:
        """Refuse invalid values.

        Raises:
            UsageError: a value is invalid; the message names the setting.
        """
        super().check()
        if min(self.decoder_channels) < 1:
            raise UsageError("decoder_channels: must be at least 1 at each stride")


CONFIG = SegmentationConfig
