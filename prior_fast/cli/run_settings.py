"""The settings of pre-training, which `train` and benchmarks take."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prior_fast.cli.settings import SettingsOf

if TYPE_CHECKING:
    from prior_fast.config import RunConfig


def run_config(args: argparse.Namespace, words: Sequence[str]) -> "RunConfig":
    """The config of the preset that --preset names, changed by settings.

    Raises:
        UsageError: there is no such preset or setting, or a value is of the wrong type.
    """
    from prior_fast.config import apply_overrides, preset

    return apply_overrides(preset(getattr(args, "preset", None) or "paper"), words)


def _source(config: "RunConfig", name: str) -> str:
    from prior_fast.config.sources import SOURCES

    return str(SOURCES[name].of(config.preset))


RUN_SETTINGS = SettingsOf(run_config, source=_source)
