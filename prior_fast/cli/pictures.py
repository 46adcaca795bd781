"""`prior-fast pictures`: show what a checkpoint has learned."""

import argparse
from pathlib import Path

EPILOG = """settings (key=value):
  count=N              studies shown in a picture of X-rays, 1 to 8 (4)
  seed=N               seed of the choice of studies and sentences, and of t-SNE (0)
  sentences=FILE       groups of synonymous sentences: one sentence per line, an empty line between groups, "# name"
                       names a group (default: a few built-in groups)
  batch_size=N         images or texts encoded at once (64)
  device=auto|cpu|cuda

example: prior-fast pictures --checkpoint run --data prepared --out pictures count=6
"""


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    parser = subparsers.add_parser(
        "pictures",
        help="zero-shot curves, attention maps, reconstructions, prototypes, loss curves",
        description="Show what a checkpoint has learned: zero-shot classification, attention over X-rays, "
        "reconstructed images, sentence embeddings, prototypes and loss curves, as PNG files and a page, index.html.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a run's folder (its newest checkpoint) or one checkpoint"
    )
    parser.add_argument("--data", type=Path, required=True, help="a prepared dataset")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--split", default="test", help="split whose studies are shown (default: test)")
    parser.set_defaults(run=run, settings=[])


def run(args: argparse.Namespace) -> int:
    from prior_fast.pictures.make import make_pictures

    make_pictures(args.checkpoint, args.data, args.out, args.split, args.settings)
    return 0
