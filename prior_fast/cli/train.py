"""`prior-fast train`: pre-train all three stages."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prior_fast.config import RunConfig

EXAMPLE = """examples:
  prior-fast train --preset tiny --data prepared --out run
  prior-fast train --preset paper --data prepared --out run batch_size=256 model.bank.prototypes=1024
  torchrun --nproc-per-node 4 -m prior_fast.cli.main train --preset paper --data prepared --out run
  prior-fast train --data prepared --out run --resume auto
"""


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    parser = subparsers.add_parser(
        "train",
        help="pre-train PRIOR in its three stages",
        description="Pre-train PRIOR in its three stages. Settings (key=value) change any field of the config;\n"
        "`--settings` lists them with their values and the sources of these. SIGTERM and SIGUSR1 end the run\n"
        "after the current step with a checkpoint and exit code 75, so that a scheduler can requeue it. Ctrl-C does\n"
        "the same with exit code 130; a second Ctrl-C ends the run at once.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", help="paper (the default), released or tiny")
    parser.add_argument("--data", type=Path, help="a prepared dataset")
    parser.add_argument("--out", type=Path, help="folder of the run: config, log, checkpoints")
    parser.add_argument("--resume", metavar="auto|PATH", help="resume from the run's newest checkpoint, or from PATH")
    parser.add_argument("--stop-after", type=int, default=0, metavar="N", help="stop after N steps of the whole run")
    parser.add_argument("--settings", dest="list_settings", action="store_true", help="list the settings and exit")
    parser.set_defaults(run=run, settings=[])


def run(args: argparse.Namespace) -> int:
    from prior_fast.config import apply_overrides, preset, validate_config
    from prior_fast.errors import UsageError
    from prior_fast.files.claim import check_kind

    config = apply_overrides(preset(args.preset or "paper"), args.settings)
    if args.list_settings:
        return list_settings(config)
    for name in ("data", "out"):
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing (see prior-fast train --help)")
    validate_config(config)
    check_kind(args.out, "run")
    from prior_fast.console import stderr
    from prior_fast.training.pretrain import train
    from prior_fast.training.resume import find_start

    start = find_start(config, args.out, args.resume, args.preset, args.settings)
    for note in start.notes:
        stderr.print(note)
    return train(start.config, args.data, args.out, start.checkpoint, args.stop_after, start.dataset)


WIDTH = 50  # of a setting in the list, before its source


def list_settings(config: "RunConfig") -> int:
    """Print every setting of `config` with its value and the value's source."""
    from prior_fast.config import preset
    from prior_fast.config.overrides import field_names, setting_text
    from prior_fast.config.sources import SOURCES
    from prior_fast.console import stdout

    unchanged = preset(config.preset)
    for name in field_names(config):
        text, default = setting_text(config, name), setting_text(unchanged, name)
        source = str(SOURCES[name].of(config.preset)) if text == default else f"changed from {default}"
        stdout.print(f"{name + '=' + text:<{WIDTH}}  # {source}")
    return 0
