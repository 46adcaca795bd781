"""`prior-fast evaluate`: measure a checkpoint on a task."""

import argparse
from contextlib import AbstractContextManager
from pathlib import Path

from prior_fast.downstream import config as fine_tuned
from prior_fast.evaluation.learned_config import SPLITS

TASKS = {
    "zero-shot": "classify X-rays by prompts, without training; with annotations, play the pointing game too",
    "retrieval": "find the report of an X-ray, and the X-ray of a report",
}
SETTINGS = """settings (key=value; docs/zero-shot.md has the protocols):
  classes=A,B,...      labels of the dataset (default: the five of CheXpert 5x200, or else all
                       its own that are positive); one class: whether it is there
  per_class=N          images drawn of each class, at most (200; all of chexpert5x200, rsna, siim)
  seed=N               seed of the draws (0)
  image_ids=FILE       the images, instead of a draw: selection.csv of an earlier run, or one id
                       (or name of a study) per line
  part_of=NAME         split of a labelled dataset whose part --split names (all or prior-0); whole: every image
  local_weight=X       weight of the local score (1; 0.5 for preset released; 0 for a model
                       without local alignment)
  pictures=true|false  whether to write pictures (true)
  batch_size=N         images or texts encoded at once (64)
  device=auto|cpu|cuda
  verify=full|sizes    compare the datasets' files by SHA-256 or by size alone (full)
"""
LEARNED_TASKS = {
    "generation": "measure what the decoders generate: reconstructed findings, and findings of generated prototypes",
    "bank": "measure the purity of the prototypes: whether each stands for one finding, side and presence",
}
LEARNED_SETTINGS = """settings (key=value; docs/what-it-learns.md has the measures):
  studies=N            studies drawn, at most (1000); 0: all
{own}  seed=N               seed of the draws, the masked channels and the chance levels (0)
  batch_size=N         images or texts encoded at once (64)
  device=auto|cpu|cuda
  verify=full|sizes    compare the dataset's files by SHA-256 or by size alone (full)
"""
OWN_LEARNED_SETTINGS = {
    "generation": """  bank_studies=N       training studies that give the prototypes their meaning, at most (1000)
""",
    "bank": """  context=report|alone encode sentences in their reports, as in training, or each alone (report)
""",
}
FINE_TUNED_SETTINGS = """settings (key=value; docs/tasks.md has the defaults of each dataset):
  percent=1|10|100     percentage of the training images (100)
  splits=A,B,...       splits of the dataset (default: all of PRIOR's)
  weights=checkpoint|random
                       random: the checkpoint's architecture with fresh weights, as a baseline
  learning_rate=X epochs=N batch_size=N
                       (the supplement's for the dataset and percent)
  optimizer=adam|adamw weight_decay=X schedule=cosine|constant augment=none|flip
  normalization=dataset|pretraining
                       whose mean and standard deviation normalize the images
  precision=auto|bf16|fp32
  validate_every=N     epochs between validations (1)
  max_steps=N          steps of each split; 0: no limit
  seed=N device=auto|cpu|cuda
  verify=full|sizes    compare the dataset's files by SHA-256 or by size alone (full)
"""
OWN_SETTINGS = {
    "zero-shot": """  score=prior|gloria   the paper's, or GLoRIA's and BenchX's convention (prior)
  prompt=TEXT          {} stands for the class ("{} is observed")
  negative_prompt=TEXT used if the dataset has one class ("No {} is observed")
  prompts=template|generated|FILE
                       FILE: JSON {"Class": ["prompt", ...], ...}
  prompts_per_class=N  generated prompts (5)
  prompt_pooling=mean|max
                       over the prompts of a class (mean; gloria: max)
""",
    "retrieval": """  by=auto|class|study  class: studies with exactly one of the classes; study: all studies, without
                       classes (auto: class where the labels give two classes, else study)
  studies=N            by=study: studies drawn, at most (5000); 0: all
  cutoffs=K,...        K of precision, hit rate and recall at K (1,5,10)
  reports=DIR          prepared dataset of the candidates (default: reports of the images' studies)
  reports_split=test|validate|train|all
                       split that the reports are drawn from (test)
  reports_per_class=N  reports drawn of each class, at most (as many as images)
  report_ids=FILE      the reports, instead of a draw
  rank_within=N        rank inside batches of N, as BenchX does (0: over all)
""",
}
GOES_ON = "After a stop by Ctrl-C or a signal, the same command resumes where it stopped and keeps finished splits."


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="zero-shot classification, retrieval, what the model learned, classification, segmentation, detection",
        description="Measure a checkpoint on a task.",
        epilog="example: prior-fast evaluate zero-shot --checkpoint run --data prepared --out zero-shot",
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", dest="task", required=True)
    for name, description in TASKS.items():
        settings, wanted = SETTINGS + OWN_SETTINGS[name], "a prepared dataset or a labelled dataset"
        task = _add_task(tasks, name, description, settings, wanted, "--data prepared --out out seed=1")
        task.add_argument(
            "--split",
            default="test",
            help="split of a prepared dataset, or part of a labelled dataset's split, to measure on (default: test)",
        )
        task.set_defaults(run=run, settings=[])
    for name, description in LEARNED_TASKS.items():
        settings = LEARNED_SETTINGS.format(own=OWN_LEARNED_SETTINGS[name])
        task = _add_task(tasks, name, description, settings, "a prepared dataset", "--data prepared --out out seed=1")
        split = SPLITS[name]
        task.add_argument("--split", default=split, help=f"split to measure on (default: {split})")
        task.set_defaults(run=run_learned, settings=[])
    for name in fine_tuned.TASKS:
        own = fine_tuned.settings_of(name)
        settings = FINE_TUNED_SETTINGS + own.SETTINGS + f"\n{GOES_ON}\n"
        wanted = "a labelled dataset"
        task = _add_task(tasks, name, own.HELP, settings, wanted, f"--data {own.FALLBACK} --out out percent=1")
        task.set_defaults(run=run_fine_tuned, settings=[])


def run(args: argparse.Namespace) -> int:
    from prior_fast.evaluation.config import evaluation_config

    evaluation_config(args.settings, task=args.task)  # before the import of the model, which takes seconds
    with _hold(args, "evaluation"):
        from prior_fast.evaluation.evaluate import evaluate

        evaluate(args.task, args.checkpoint, args.data, args.out, args.split, args.settings)
    return 0


def run_learned(args: argparse.Namespace) -> int:
    from prior_fast.evaluation.learned_config import learned_config

    learned_config(args.settings, args.task)  # before the import of the model, which takes seconds
    with _hold(args, "evaluation"):
        from prior_fast.evaluation.learned import measure

        measure(args.task, args.checkpoint, args.data, args.out, args.split, args.settings)
    return 0


def run_fine_tuned(args: argparse.Namespace) -> int:
    from prior_fast.downstream.config import task_config

    task_config(args.task, args.settings)  # before the import of torch, which takes seconds
    with _hold(args, "fine-tuning"):
        from prior_fast.downstream.command import run_task

        return run_task(args.task, args.checkpoint, args.data, args.out, args.settings)


def _hold(args: argparse.Namespace, kind: str) -> AbstractContextManager[Path]:
    """Hold --out; refused before the import of the model."""
    from prior_fast.evaluation.out_folder import hold_out

    return hold_out(args.out, kind, args.checkpoint, args.data)


def _add_task(
    tasks: "argparse._SubParsersAction", name: str, description: str, settings: str, data: str, example: str
) -> argparse.ArgumentParser:
    task = tasks.add_parser(
        name,
        help=description,
        description=f"{description[0].upper()}{description[1:]}.",
        epilog=f"{settings}\nexample: prior-fast evaluate {name} --checkpoint run {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    encoders = ", or a file with a ResNet's weights" if name in fine_tuned.TASKS else ""
    wanted = f"a run's folder (its newest checkpoint) or one checkpoint{encoders}"
    task.add_argument("--checkpoint", type=Path, required=True, help=wanted)
    task.add_argument("--data", type=Path, required=True, help=data)
    task.add_argument("--out", type=Path, required=True, help="folder for metrics.json and the tables")
    return task
