"""The folder --out of an evaluation or of fine-tuning: of that kind alone, held by one process, never mixed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prior_fast.console import stdout
from prior_fast.data.dataset_folder import INFO_FILE
from prior_fast.errors import UsageError
from prior_fast.files.claim import KIND_FILE, check_kind, claim_folder
from prior_fast.files.space import explained

METRICS_FILE = "metrics.json"
# The files of all evaluations, of which a later evaluation replaces or removes every one.
RESULT_FILES = (
    METRICS_FILE,
    *("predictions.csv", "selection.csv", "selection_images.csv", "selection_reports.csv"),
    *("roc.png", "confusion.png", "retrieved-reports.png", "retrieved-images.png"),
    *("prototypes.csv", "reconstruction.csv", "generated.csv"),
)
# The files by which a dataset and a checkpoint are known.
_INPUTS = {INFO_FILE: "a dataset", "checkpoint.json": "a checkpoint"}


@contextmanager
def hold_out(out: Path, kind: str, checkpoint: Path, data: Path) -> Iterator[Path]:
    """Hold --out while a command works; a folder that was made and into which nothing was written is removed again.

    Args:
        kind: "evaluation" or "fine-tuning".
        checkpoint, data: the inputs, which the command must not write into.

    Yields:
        The folder, symbolic links followed.

    Raises:
        UsageError: it is or lies in an input, a dataset or a checkpoint, or holds something of another kind.
        RunError: another process writes there.
    """
    refuse_inputs(out, checkpoint, data)
    resolved = check_kind(out, kind)
    made = [path for path in (resolved, *resolved.parents) if not path.exists()]
    try:
        with claim_folder(out, kind):
            yield resolved
    finally:
        if made and [path.name for path in resolved.glob("*")] == [KIND_FILE]:
            (resolved / KIND_FILE).unlink()
            # A folder that got something else meanwhile stays.
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()


@contextmanager
def replace_results(out: Path) -> Iterator[Path]:
    """Yield an empty folder to write the results of an evaluation to; they replace those of an older one in `out`.

    The older results stay until all new ones are written. metrics.json is removed first and put in place last, so that
    it never stands beside files of another evaluation. The caller holds `out`.

    Raises:
        RunError: the disk is full; the older results are unchanged.
    """
    out = out.resolve()
    partial = out / f".results.{os.getpid()}.partial"
    with explained(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            names = {path.name for path in partial.iterdir()}
            unknown = names - set(RESULT_FILES)
            assert METRICS_FILE in names and not unknown, f"RESULT_FILES lacks {unknown}"
            older = (out / METRICS_FILE).exists()
            (out / METRICS_FILE).unlink(missing_ok=True)
            if older:
                for name in set(RESULT_FILES) - names:
                    (out / name).unlink(missing_ok=True)
            for name in sorted(names, key=lambda name: name == METRICS_FILE):
                (partial / name).replace(out / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    if older:
        stdout.print(f"the results of an earlier evaluation in {out} were replaced")


def refuse_inputs(out: Path, checkpoint: Path, data: Path) -> None:
    """Raise UsageError if --out is or lies in a dataset or a checkpoint, or is the folder of --checkpoint or --data."""
    resolved = out.resolve()
    for option, path in (("--checkpoint", checkpoint), ("--data", data)):
        if path.is_dir() and resolved == path.resolve():
            raise UsageError(f"--out {out} is the folder of {option}, which would be overwritten: give another folder")
    for folder in (resolved, *resolved.parents):
        for name, what in _INPUTS.items():
            if (folder / name).is_file():
                raise UsageError(f"--out {out} is in {folder}, which is {what}: give another folder")
        if folder.name == "checkpoints" and any(folder.glob("step-*/checkpoint.json")):
            raise UsageError(f"--out {out} is in {folder}, which holds checkpoints: give another folder")
    if data.is_dir() and data.resolve() in resolved.parents:
        raise UsageError(f"--out {out} is in the folder of --data: give another folder")
