"""`prior-fast reproduce`: the paper's tables and figures, from its datasets."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prior_fast.cli.inputs import look_at_checkpoint, look_at_file
from prior_fast.cli.parser import examples
from prior_fast.cli.run_settings import RUN_SETTINGS, run_config
from prior_fast.cli.settings import SettingsOf, take_settings
from prior_fast.errors import UsageError
from prior_fast.spelling import nearest

if TYPE_CHECKING:
    from prior_fast.config.describe import Described

# Those of prior_fast/reproduce/tables.py, which loads torch.
TABLES = {
    "1": "supervised classification on RSNA, SIIM-ACR and CheXpert",
    "2": "zero-shot classification and retrieval on CheXpert 5x200",
    "3": "segmentation on SIIM-ACR, detection on RSNA",
    "4": "ablation: PRIOR without local alignment, bank or reconstruction",
    "supplement-3": "softmax against sigmoid attention",
    "figure-3": "classification with more and more of the encoder's blocks trained",
    "supplement-figures": "the supplement's figures 1 to 5",
    "all": "all of them",
}
EPILOG = """tables:
{tables}

Settings (COMMAND.KEY=VALUE words) go to every step of a command: train, zero-shot, retrieval, classification, \
segmentation, detection, pictures. `prior-fast train --settings` and `prior-fast evaluate zero-shot --settings` list \
those of a command.

After a stop by Ctrl-C or a signal, a crash, or a kill, the same command goes on: finished steps are kept. A step that \
fails does not stop the others.

"""


class CommandSettings(SettingsOf):
    """The settings of the commands, each after the name of its command and a dot."""

    def described(self, args: argparse.Namespace, words: Sequence[str] = ()) -> "list[Described]":
        """All of them, with their default values."""
        return [
            replace(each, name=f"{command}.{each.name}")
            for command, settings in _commands().items()
            for each in settings.described(args)
        ]

    def check(self, args: argparse.Namespace) -> None:
        """As `prior_fast.reproduce.plan.split_settings`, for commands that it knows; --table gives settings back."""
        args.settings = [*(word for word in args.table if "=" in word), *args.settings]
        args.table = [word for word in args.table if "=" not in word]
        for command, settings in _commands().items():
            own = [word.removeprefix(f"{command}.") for word in args.settings if word.startswith(f"{command}.")]
            settings.config(args, own)


def _commands() -> dict[str, SettingsOf]:
    from prior_fast.cli.evaluate import FINE_TUNED_TASKS, TASKS, task_settings
    from prior_fast.cli.pictures import PICTURES_SETTINGS

    tasks = {name: task_settings(name) for name in (*TASKS, *FINE_TUNED_TASKS)}
    return {"train": RUN_SETTINGS, **tasks, "pictures": PICTURES_SETTINGS}


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `reproduce`."""
    parser = subparsers.add_parser(
        "reproduce",
        help="the paper's tables and figures, as commands and as numbers beside the printed ones",
        description="Write the commands of the paper's tables and figures, run them, and write the tables beside the "
        "printed numbers, with the differences in protocol. docs/reproducing.md has the details.",
        epilog=EPILOG.format(tables="\n".join(f"  {name:<20}{title}" for name, title in TABLES.items()))
        + examples(
            "prior-fast reproduce --table 1 --plan",
            "prior-fast reproduce --table 1 3 --data rsna=rsna --data siim=siim --data mimic=prepared "
            "train.batch_size=256",
            "prior-fast reproduce --table supplement-3 --data mimic=mimic-cxr-jpg/2.0.0 "
            "--data mimic-reports=mimic-cxr/2.0.0 --data chexpert=CheXpert-v1.0-small --data siim=siim "
            "--out reproduced",
        ),
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
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reproduced"),
        metavar="DIR",
        help="folder of all results (default: reproduced)",
    )
    parser.add_argument(
        "--preset", default="paper", metavar="NAME", help="of pre-training: paper, released or tiny (default: paper)"
    )
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
    take_settings(parser, CommandSettings(run_config))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    for name in args.table:
        if name not in TABLES:
            hint = nearest(name, TABLES)
            raise UsageError(f"--table {name}: there is no such table{hint}; {', '.join(TABLES)} exist")
    look_at_file(args.list, "--list")
    look_at_checkpoint(args.checkpoint)
    from prior_fast.reproduce.downloads import given_datasets

    given_datasets(args.data)
    from prior_fast.console import busy

    with busy("loading PyTorch"):
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
