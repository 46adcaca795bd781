"""`prior-fast evaluate`: measure a checkpoint on a task."""

import argparse
from pathlib import Path

TASKS = {
    "zero-shot": "classify X-rays by prompts, without training; the pointing game too, where findings are marked",
    "retrieval": "find the report of an X-ray, and the X-ray of a report",
}
SETTINGS = """settings (key=value):
  classes=A,B,...      CheXpert labels (default: the five of CheXpert 5x200)
  per_class=N          studies drawn of each class, at most (200)
  seed=N               of the draw (0)
  prompt=TEXT          {} stands for the class ("{} is observed")
  local_weight=X       of the local score (1; 0.5 for preset released)
  batch_size=N         images or texts encoded at once (64)
  device=auto|cpu|cuda
"""


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="zero-shot classification and retrieval",
        description="Measure a checkpoint on a task, on the studies with exactly one of the classes.",
        epilog="example: prior-fast evaluate zero-shot --checkpoint run --data prepared --out zero-shot",
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", dest="task", required=True)
    for name, description in TASKS.items():
        task = tasks.add_parser(
            name,
            help=description,
            description=f"{description[0].upper()}{description[1:]}.",
            epilog=f"{SETTINGS}\nexample: prior-fast evaluate {name} --checkpoint run --data prepared --out out seed=1",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        task.add_argument(
            "--checkpoint", type=Path, required=True, help="a run's folder (its newest) or one checkpoint"
        )
        task.add_argument("--data", type=Path, required=True, help="a prepared dataset")
        task.add_argument("--out", type=Path, required=True, help="folder for metrics.json and the tables")
        task.add_argument("--split", default="test", help="split to measure on (default: test)")
        task.set_defaults(run=run, settings=[])


def run(args: argparse.Namespace) -> int:
    from prior_fast.evaluation.config import evaluation_config

    evaluation_config(args.settings)  # before the seconds that importing the model takes
    from prior_fast.evaluation.run import evaluate

    evaluate(args.task, args.checkpoint, args.data, args.out, args.split, args.settings)
    return 0
