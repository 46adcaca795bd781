"""`prior-fast train`: pre-train all three stages."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prior_fast.config import RunConfig
    from prior_fast.training.checkpoint import Checkpoint

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
        "after the current step with a checkpoint and exit code 75, so that a scheduler can requeue it.",
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

    config = apply_overrides(preset(args.preset or "paper"), args.settings)
    if args.list_settings:
        return list_settings(config)
    for name in ("data", "out"):
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing (see prior-fast train --help)")
    validate_config(config)
    from prior_fast.training.checkpoint import list_checkpoints, open_checkpoint
    from prior_fast.training.pretrain import train
    from prior_fast.training.signals import EXIT_CODE

    checkpoints = list_checkpoints(args.out / "checkpoints")
    if args.resume is None:
        if checkpoints:
            raise UsageError(
                f"{args.out} already holds a run: add --resume auto to go on with it, or name another --out"
            )
        checkpoint = None
    elif args.resume == "auto":
        checkpoint = open_checkpoint(args.out) if checkpoints else None
    else:
        checkpoint = open_checkpoint(Path(args.resume))
    if checkpoint:
        config = resumed_config(args, checkpoint)
    stopped = train(config, args.data, args.out, checkpoint, args.stop_after)
    return EXIT_CODE if stopped else 0


WIDTH = 50  # of a setting in the list, before its source

# Settings that may change when a run is resumed. Changing any other setting would make it a different run.
FREE = (
    "device",
    "processes",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "profile",
    "workers",
    "cudnn_benchmark",
    "cuda_graphs",
)


def resumed_config(args: argparse.Namespace, checkpoint: "Checkpoint") -> "RunConfig":
    """The checkpoint's config, changed by the settings of the command line that are in FREE.

    Raises:
        UsageError: the command line asks for another preset, or changes a setting that is not in FREE.
    """
    from prior_fast.config import apply_overrides, to_dict
    from prior_fast.errors import UsageError

    saved = checkpoint.config
    if args.preset is not None and args.preset != saved.preset:
        raise UsageError(f"{checkpoint.path} was made with --preset {saved.preset}, not {args.preset}")
    config = apply_overrides(saved, args.settings)
    for word in args.settings:
        key = word.split("=")[0]
        old, new = _lookup(to_dict(saved), key), _lookup(to_dict(config), key)
        if old != new and key.rsplit(".", 1)[-1] not in FREE:
            raise UsageError(f"{checkpoint.path} was made with {key}={old}: a resumed run can't change it to {new}")
    return config


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


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
