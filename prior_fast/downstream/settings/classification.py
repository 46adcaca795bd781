"""The settings of supervised classification (supplement 3.1). They are checked before torch is loaded."""

from dataclasses import dataclass
from typing import Literal

from prior_fast.config.setting import setting
from prior_fast.downstream.settings.base import FineTuneConfig, Preset, each_once
from prior_fast.errors import UsageError

HELP = "fine-tune the image encoder with a linear layer; AUROC"
# Table 1 of the supplement, by dataset and percent.
PRESETS: dict[str, dict[int, Preset]] = {
    "rsna": {100: Preset(1e-4, 5, 64), 10: Preset(1e-4, 5, 64), 1: Preset(1e-4, 10, 64)},
    "siim": {100: Preset(1e-5, 5, 64), 10: Preset(1e-5, 20, 64), 1: Preset(1e-4, 20, 64)},
    "chexpert": {100: Preset(1e-6, 5, 256), 10: Preset(1e-5, 5, 256), 1: Preset(1e-4, 5, 256)},
}
# The prefix of the names of PRIOR's splits: 6:2:2, drawn with five seeds (its authors in issue 12 of QtacierP/PRIOR).
SPLITS = "prior-"
# The dataset whose presets are used for datasets that are not in the table. It is also the example of --help.
FALLBACK = "rsna"
FULL = 4  # stages of a ResNet-50; for other encoders it means all stages


@dataclass(frozen=True)
class ClassificationConfig(FineTuneConfig):
    """Supervised classification (supplement 3.1)."""

    classes: tuple[str, ...] = setting(
        (), "labels of the dataset; empty: the five of CheXpert 5x200 if the dataset has them, else all"
    )
    blocks: int = setting(
        FULL,
        "last stages of the encoder that are trained, 0 to 4 (the paper's Figure 3); 0: the linear layer alone; the "
        "number of all stages, or 4: everything, including the stem",
    )
    pool: Literal["average", "attention"] = setting(
        "average", "how the encoder's map becomes a vector: its mean, or the pre-trained attention pool"
    )
    sweep: Literal["none", "blocks"] = setting("none", "blocks repeats the task for every number of blocks (Figure 3)")

    def check(self) -> None:
        """Refuse invalid values.

        Raises:
            UsageError: a value is invalid; the message names the setting.
        """
        super().check()
        each_once(self, "classes")
        if not 0 <= self.blocks <= FULL:
            raise UsageError(f"blocks={self.blocks}: must be 0 to {FULL}")


CONFIG = ClassificationConfig
