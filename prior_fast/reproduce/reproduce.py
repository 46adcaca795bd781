"""From the command's arguments to filled tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prior_fast.config import preset
from prior_fast.console import stdout
from prior_fast.errors import RunError, UsageError
from prior_fast.files import write_text
from prior_fast.files.claim import check_kind, mark_folder
from prior_fast.reproduce.downloads import DOWNLOADS, describe_datasets, given_datasets, missing
from prior_fast.reproduce.execute import check_plan, execute, only_one
from prior_fast.reproduce.plan import Planner, split_settings, variable
from prior_fast.reproduce.report import Cells, write_report
from prior_fast.reproduce.steps import Step
from prior_fast.reproduce.tables import Table, find_tables
from prior_fast.training.checkpoint import open_checkpoint
from prior_fast.training.signals import EXIT_CODE

SCRIPT = "plan.sh"


@dataclass(frozen=True)
class ReproduceOptions:
    """Options of `prior-fast reproduce`.

    Attributes:
        tables: names of tables; "all" stands for all of them.
        out: the folder of all results.
        data: `NAME=DIR` words: the datasets.
        preset: of pre-training.
        checkpoint: a trained PRIOR, used in place of a pre-training run.
        list_5x200: a file with the images of CheXpert 5x200, in place of five draws.
        processes: of each pre-training run.
        plan_only: write the list of commands and stop.
    """

    tables: tuple[str, ...]
    out: Path
    data: tuple[str, ...] = ()
    preset: str = "paper"
    checkpoint: Path | None = None
    list_5x200: Path | None = None
    processes: int = 1
    plan_only: bool = False


def reproduce(options: ReproduceOptions, words: Sequence[str]) -> bool:
    """Write the commands of the tables, run the unfinished ones, and write the tables.

    words: `COMMAND.KEY=VALUE` settings of the commands.

    Returns:
        Whether a signal stopped the run.

    Raises:
        UsageError: an argument can't be used, a dataset is missing, or the folder holds another plan.
        RunError: a step failed; the tables without its numbers are written.
    """
    tables = find_tables(list(options.tables))
    preset(options.preset)
    if options.processes < 1:
        raise UsageError(f"--processes {options.processes}: must be 1 or more")
    if options.list_5x200 and not options.list_5x200.is_file():
        raise UsageError(f"--list {options.list_5x200}: there is no such file")
    check_kind(options.out, "reproduction")
    settings = split_settings(words, options.preset)
    checkpoint = options.checkpoint and open_checkpoint(options.checkpoint).path.resolve()
    planner = Planner(
        out=options.out.resolve(),
        given=given_datasets(options.data),
        preset=options.preset,
        settings=settings,
        checkpoint=checkpoint,
        list_5x200=options.list_5x200 and options.list_5x200.resolve(),
        processes=options.processes,
    )
    cells = {table.name: _cells(table, planner) for table in tables}
    pictures = {table.name: _pictures(table, planner) for table in tables}
    lacking = missing(planner.datasets, planner.given)
    for line in describe_datasets(planner.datasets, planner.given):
        stdout.print(line)
    if options.plan_only:
        write_text(planner.out / SCRIPT, script(planner))
        stdout.print(f"{planner.out / SCRIPT}: {len(planner.steps)} commands")
        return False
    if lacking:
        raise UsageError(
            f"{', '.join(lacking)}: missing; give {' '.join(f'--data {name}=DIR' for name in lacking)}, or --plan for "
            "the commands alone"
        )
    with only_one(planner.out) as lock:
        mark_folder(planner.out, "reproduction")
        check_plan(planner.out, planner.steps)
        write_text(planner.out / SCRIPT, script(planner))
        outcome = execute(planner.steps.values(), lock)
    if outcome.stopped:
        stdout.print(f"stopped by a signal (exit code {EXIT_CODE}); the same command goes on in {planner.out}")
        return True
    facts = _facts(options, words, checkpoint)
    for table in tables:
        write_report(table, cells[table.name], pictures[table.name], facts, outcome, planner.out / "tables")
    stdout.print(f"\n{planner.out / SCRIPT} has the commands, {planner.out / 'tables'} the tables")
    if outcome.failed:
        raise RunError(
            f"{len(outcome.failed)} of {len(planner.steps)} steps failed ({', '.join(outcome.failed)}): mend the cause "
            "and give the same command again; finished steps are kept"
        )
    return False


def script(planner: Planner) -> str:
    """The commands as a shell script."""
    lines = [
        "#!/usr/bin/env bash",
        "# Made by prior-fast reproduce. A step is finished if the file in its comment exists.",
    ]
    lines += ["set -eu"]
    for name in planner.datasets:
        if name not in planner.given and not DOWNLOADS[name].optional:
            folder = f"set it to the folder of {DOWNLOADS[name].title}"
            lines.append(f': "${{{variable(name)[1:]}:?{folder}}}"')
    for step in planner.steps.values():
        lines += ["", f"# {step.name}: {step.out / step.proof}", step.shown()]
    return "\n".join(lines) + "\n"


def _cells(table: Table, planner: Planner) -> Cells:
    return {
        (variant, column.key): column.measure.plan(planner, variant)
        for variant in table.variants
        for column in table.columns
    }


def _pictures(table: Table, planner: Planner) -> dict[str, Step]:
    return {} if table.columns else {variant: planner.pictured(variant) for variant in table.variants}


def _facts(options: ReproduceOptions, words: Sequence[str], checkpoint: Path | None) -> list[str]:
    """What differs from the paper by the user's wish."""
    facts = []
    if checkpoint:
        facts.append(f"PRIOR is the checkpoint {checkpoint}; it was not trained here.")
    if options.preset != "paper":
        facts.append(f"Pre-training uses the preset {options.preset}, not paper.")
    if options.list_5x200:
        facts.append(f"CheXpert 5x200 is the list {options.list_5x200}, not five draws.")
    if words:
        facts.append(f"Settings that differ: {' '.join(words)}.")
    return facts
