"""`prior-fast train`: pre-train all three stages."""

import argparse
from contextlib import nullcontext
from pathlib import Path

from prior_fast.cli.inputs import checkpoints, look_at_checkpoint, look_at_dataset
from prior_fast.cli.parser import examples
from prior_fast.cli.run_settings import RUN_SETTINGS, run_config
from prior_fast.cli.settings import take_settings

PARTS = """Settings (key=value words, anywhere in the command) change any value of the config. `--settings` lists them \
with their values, types, meanings and the sources of the values; `--settings model.bank` lists a part.

SIGTERM and SIGUSR1 end the run after the current step with a checkpoint and exit code 75, so that a scheduler can \
requeue it. Ctrl-C does the same with exit code 130; a second Ctrl-C ends the run at once.

"""


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `train`."""
    parser = subparsers.add_parser(
        "train",
        help="pre-train PRIOR in its three stages",
        description="Pre-train PRIOR on a prepared dataset in its three stages, and write checkpoints and a log.",
        epilog=PARTS
        + examples(
            "prior-fast train --preset tiny --data prepared --out run",
            "prior-fast train --preset paper --data prepared --out run batch_size=256 model.bank.prototypes=1024",
            "prior-fast train --data prepared --out run --resume auto",
            "prior-fast train --settings model.bank",
            "torchrun --nproc-per-node 4 -m prior_fast.cli.main train --data prepared --out run",
        ),
    )
    parser.add_argument("--preset", metavar="NAME", help="paper, released or tiny (default: paper)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a prepared dataset; must be given")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for config, log, checkpoints; must be given")
    parser.add_argument("--resume", metavar="auto|PATH", help="resume from the run's newest checkpoint, or from PATH")
    parser.add_argument(
        "--stop-after", type=int, default=0, metavar="N", help="stop after N steps of the whole run (default: never)"
    )
    take_settings(parser, RUN_SETTINGS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.config import validate_config
    from prior_fast.errors import UsageError
    from prior_fast.files.claim import check_kind

    config = run_config(args, args.settings)
    for name in ("data", "out"):
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing (see prior-fast train --help)")
    validate_config(config)
    check_kind(args.out, "run")
    if args.resume is None and checkpoints(args.out / "checkpoints"):
        raise UsageError(f"{args.out} already holds a run: add --resume auto to go on with it, or name another --out")
    if args.resume not in (None, "auto"):
        look_at_checkpoint(Path(args.resume))
    look_at_dataset(args.data)
    from prior_fast.console import busy, stderr

    with busy("loading PyTorch"):
        from prior_fast.training.pretrain import train
        from prior_fast.training.resume import find_start

    with busy("checking the checkpoint") if args.resume else nullcontext():
        start = find_start(config, args.out, args.resume, args.preset, args.settings)
    for note in start.notes:
        stderr.print(note)
    return train(start.config, args.data, args.out, start.checkpoint, args.stop_after, start.dataset)
