"""`prior-fast evaluate`: measure a checkpoint on a task."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from prior_fast.cli.inputs import look_at_checkpoint, look_at_dataset
from prior_fast.cli.parser import LateParser, examples
from prior_fast.cli.settings import SettingsOf, take_settings
from prior_fast.config import apply_overrides
from prior_fast.downstream import config as fine_tuned

TASKS = {
    "zero-shot": "classify X-rays by prompts, without training; with annotations, play the pointing game too",
    "retrieval": "find the report of an X-ray, and the X-ray of a report",
}
LEARNED_TASKS = {
    "generation": "measure what the decoders generate: reconstructed findings, and findings of generated prototypes",
    "bank": "measure the purity of the prototypes: whether each stands for one finding, side and presence",
}
FINE_TUNED_TASKS = {name: fine_tuned.settings_of(name).HELP for name in fine_tuned.TASKS}
PROTOCOLS = {
    **dict.fromkeys(TASKS, "docs/zero-shot.md has the settings of published protocols."),
    **dict.fromkeys(LEARNED_TASKS, "docs/what-it-learns.md has the measures."),
    **dict.fromkeys(
        FINE_TUNED_TASKS,
        "docs/tasks.md has the supplement's learning rate, epochs and batch size for each dataset. After a stop by "
        "Ctrl-C or a signal, the same command resumes where it stopped and keeps finished splits.",
    ),
}


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a checkpoint: zero-shot, retrieval, what it learned, fine-tuned tasks",
        description="Measure a checkpoint on a task: without training (zero-shot, retrieval), what the model learned "
        "(generation, bank), or after fine-tuning (classification, segmentation, detection).",
        epilog=examples(
            "prior-fast evaluate zero-shot --checkpoint run --data prepared --out zero-shot",
            "prior-fast evaluate classification --checkpoint run --data rsna --out rsna-1 percent=1",
        ),
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", dest="task", required=True, parser_class=LateParser)
    for helps, fill in ((TASKS, _fill), (LEARNED_TASKS, _fill_learned), (FINE_TUNED_TASKS, _fill_fine_tuned)):
        for name, line in helps.items():
            description = f"{line[0].upper()}{line[1:]}."
            tasks.add_parser(name, help=line, description=description, fill=partial(fill, name))


def _fill(name: str, parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "a prepared dataset or a labelled dataset")
    parser.add_argument(
        "--split",
        default="test",
        metavar="NAME",
        help="split of a prepared dataset, or part of a labelled dataset's split, to measure on (default: test)",
    )
    _finish(parser, name, "--data prepared --out out seed=1", run)


def _fill_learned(name: str, parser: argparse.ArgumentParser) -> None:
    from prior_fast.evaluation.learned_config import SPLITS

    _add_common(parser, "a prepared dataset")
    split = SPLITS[name]
    parser.add_argument("--split", default=split, metavar="NAME", help=f"split to measure on (default: {split})")
    _finish(parser, name, "--data prepared --out out seed=1", run_learned)


def _fill_fine_tuned(name: str, parser: argparse.ArgumentParser) -> None:
    _add_common(parser, "a labelled dataset", ", or a file with a ResNet's weights")
    _finish(parser, name, f"--data {fine_tuned.settings_of(name).FALLBACK} --out out percent=1", run_fine_tuned)


def _add_common(parser: argparse.ArgumentParser, data: str, files: str = "") -> None:
    wanted = f"a run's folder (its newest checkpoint) or one checkpoint{files}"
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help=wanted)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=data)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for metrics.json and the tables")


def _finish(
    parser: argparse.ArgumentParser, name: str, example: str, run_task: Callable[[argparse.Namespace], int]
) -> None:
    command = f"prior-fast evaluate {name}"
    parser.epilog = f"{PROTOCOLS[name]}\n\n" + examples(
        f"{command} --checkpoint run {example}", f"{command} --settings"
    )
    take_settings(parser, task_settings(name), explained=True)
    parser.set_defaults(run=run_task)


def task_settings(name: str) -> SettingsOf:
    """The settings of a task."""
    if name in FINE_TUNED_TASKS:
        return SettingsOf(partial(_fine_tuned_config, name))
    if name in LEARNED_TASKS:
        from prior_fast.evaluation.learned_config import OWN as LEARNED
        from prior_fast.evaluation.learned_config import learned_config

        return SettingsOf(lambda args, words: learned_config(words, name), _of_others(name, LEARNED))
    from prior_fast.evaluation.config import OWN, evaluation_config

    return SettingsOf(lambda args, words: evaluation_config(words, task=name), _of_others(name, OWN))


def _of_others(name: str, own: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(setting for task, settings in own.items() if task != name for setting in settings)


def _fine_tuned_config(name: str, args: argparse.Namespace, words: Sequence[str]) -> Any:
    # `task_config` also takes the supplement's values for the dataset, which is not read yet.
    config = apply_overrides(fine_tuned.settings_of(name).CONFIG(), words)
    config.check()
    return config


def run(args: argparse.Namespace) -> int:
    from prior_fast.evaluation.config import evaluation_config

    reports = evaluation_config(args.settings, task=args.task).reports
    look_at_checkpoint(args.checkpoint)
    look_at_dataset(args.data)
    look_at_dataset(Path(reports) if reports else None)
    with _hold(args, "evaluation"):
        from prior_fast.console import busy

        with busy("loading PyTorch"):
            from prior_fast.evaluation.evaluate import evaluate

        evaluate(args.task, args.checkpoint, args.data, args.out, args.split, args.settings)
    return 0


def run_learned(args: argparse.Namespace) -> int:
    look_at_checkpoint(args.checkpoint)
    look_at_dataset(args.data)
    with _hold(args, "evaluation"):
        from prior_fast.console import busy

        with busy("loading PyTorch"):
            from prior_fast.evaluation.learned import measure

        measure(args.task, args.checkpoint, args.data, args.out, args.split, args.settings)
    return 0


def run_fine_tuned(args: argparse.Namespace) -> int:
    look_at_checkpoint(args.checkpoint, file=True)
    look_at_dataset(args.data)
    with _hold(args, "fine-tuning"):
        from prior_fast.console import busy

        with busy("loading PyTorch"):
            from prior_fast.downstream.command import run_task

        return run_task(args.task, args.checkpoint, args.data, args.out, args.settings)


def _hold(args: argparse.Namespace, kind: str) -> AbstractContextManager[Path]:
    """Hold --out; refused before the import of the model."""
    from prior_fast.evaluation.out_folder import hold_out

    return hold_out(args.out, kind, args.checkpoint, args.data)
