"""`prior-fast reproduce`: the paper's tables and figures, from its datasets."""

import argparse
from pathlib import Path

EPILOG = """tables:
  1                   supervised classification on RSNA, SIIM-ACR and CheXpert
  2                   zero-shot classification and retrieval on CheXpert 5x200
  3                   segmentation on SIIM-ACR, detection on RSNA
  4                   ablation: PRIOR without local alignment, bank or reconstruction
  supplement-3        softmax against sigmoid attention
  figure-3            classification with more and more of the encoder's blocks trained
  supplement-figures  the supplement's figures 1 to 5
  all                 all of them

settings (COMMAND.KEY=VALUE) go to every step of a command: train, zero-shot, retrieval, classification, segmentation,
detection, pictures. Example: train.batch_size=256 classification.precision=fp32

After a stop by Ctrl-C or a signal, a crash, or a kill, the same command goes on: finished steps are kept. A step that
fails does not stop the others.

examples:
  prior-fast reproduce --table 1 --plan
  prior-fast reproduce --table supplement-3 --data mimic=mimic-cxr-jpg/2.0.0 --data mimic-reports=mimic-cxr/2.0.0 \\
      --data chexpert=CheXpert-v1.0-small --data siim=siim --out reproduced
"""


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    parser = subparsers.add_parser(
        "reproduce",
        help="the paper's tables and figures: their commands, and with the datasets their numbers",
        description="Write the commands of the paper's tables and figures, run them, and write the tables beside the\n"
        "printed numbers, with the differences in protocol. docs/reproducing.md has the details.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--table", nargs="+", required=True, metavar="NAME", help="one or more of the tables below, or all"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a dataset: mimic, mimic-reports, chexpert, rsna or siim; DIR is the download, or what `prior-fast "
        "prepare` made of it; may be given several times",
    )
    parser.add_argument("--out", type=Path, default=Path("reproduced"), metavar="DIR", help="(default: reproduced)")
    parser.add_argument("--preset", default="paper", help="of pre-training: paper (the default), released or tiny")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="RUN", help="a trained PRIOR, such as converted weights, in place of a run"
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="a list of the images of CheXpert 5x200, in place of five draws",
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="of each pre-training run, one for each GPU (default: 1)"
    )
    parser.add_argument("--plan", action="store_true", help="write the commands into OUT/plan.sh and stop")
    parser.set_defaults(run=run, settings=[])


def run(args: argparse.Namespace) -> int:
    from prior_fast.reproduce.reproduce import ReproduceOptions, reproduce
    from prior_fast.training.signals import EXIT_CODE

    options = ReproduceOptions(
        tables=tuple(args.table),
        out=args.out,
        data=tuple(args.data),
        preset=args.preset,
        checkpoint=args.checkpoint,
        list_5x200=args.list,
        processes=args.processes,
        plan_only=args.plan,
    )
    return EXIT_CODE if reproduce(options, args.settings) else 0
