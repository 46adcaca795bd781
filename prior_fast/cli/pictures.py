"""`prior-fast pictures`: show what a checkpoint has learned."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prior_fast.cli.inputs import look_at_checkpoint, look_at_dataset
from prior_fast.cli.parser import examples
from prior_fast.cli.settings import SettingsOf, take_settings
from prior_fast.config import apply_overrides
from prior_fast.config.setting import DEVICE, setting


@dataclass(frozen=True)
class PicturesSettings:
    """The settings of `prior_fast.pictures.config.PicturesConfig`, whose module loads torch."""

    count: int = setting(4, "studies shown in a picture of X-rays, 1 to 8")
    seed: int = setting(0, "seed of the choice of studies and sentences, and of t-SNE")
    batch_size: int = setting(64, "images or texts that are encoded at once; it affects the speed, not the pictures")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", DEVICE)
    sentences: str = setting(
        "",
        'file with groups of synonymous sentences: one sentence per line, an empty line between groups, "# name" names '
        "a group; empty: a few built-in groups",
    )
    prompts: str = setting(
        "template", "prompts of the zero-shot section: template, generated, or a JSON file, as in evaluate zero-shot"
    )
    prompts_per_class: int = setting(5, "generated prompts of a class")


PICTURES_SETTINGS = SettingsOf(lambda args, words: apply_overrides(PicturesSettings(), words))


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `pictures`."""
    parser = subparsers.add_parser(
        "pictures",
        help="show what a checkpoint learned: curves, attention maps, reconstructions, prototypes",
        description="Show what a checkpoint has learned: zero-shot classification, attention over X-rays, "
        "reconstructed images, sentence embeddings, prototypes and loss curves, as PNG files and a page, index.html.",
        epilog=examples("prior-fast pictures --checkpoint run --data prepared --out pictures count=6"),
    )
    wanted = "a run's folder (its newest checkpoint) or one checkpoint"
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help=wanted)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a prepared dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--split", default="test", metavar="NAME", help="split whose studies are shown (default: test)")
    take_settings(parser, PICTURES_SETTINGS, explained=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    look_at_checkpoint(args.checkpoint)
    look_at_dataset(args.data)
    from prior_fast.console import busy

    with busy("loading PyTorch"):
        from prior_fast.pictures.make import make_pictures

    make_pictures(args.checkpoint, args.data, args.out, args.split, args.settings)
    return 0
