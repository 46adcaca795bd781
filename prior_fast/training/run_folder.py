"""A run's folder: it knows its settings and its dataset from its first second, and belongs to one process."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prior_fast.config import RunConfig, from_dict, to_dict
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.files import write_json
from prior_fast.files.claim import claim_folder, remove_leftovers
from prior_fast.training.job import Job

CONFIG_FILE, DATA_FILE = "config.json", "data.json"
CHECKPOINTS = "checkpoints"
# Files whose content decides what a step computes. The others (tables, pictures) may differ between versions.
_TRAINED_ON = ("images.npy", "tokens.npy", "sentence_offsets.npy", "tokenizer/tokenizer.json")


def dataset_digest(dataset: PreparedDataset) -> str:
    """A digest of what training reads from a dataset: SHA-256 over its files' SHA-256 and its splits."""
    files = dataset.info["files"]
    facts = [{name: files[name]["sha256"] for name in _TRAINED_ON if name in files}, dataset.info["splits"]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@contextmanager
def claim_run(job: Job, dataset: PreparedDataset) -> Iterator[None]:
    """Hold the folder of a run, in which its config and its dataset's digest are written.

    A folder that was made here is removed again if the run is refused (UsageError).

    Raises:
        UsageError: the folder holds something else.
        RunError: another process trains there.
    """
    new = not job.out.exists()
    try:
        with claim_folder(job.out, "run") as out:
            remove_leftovers(out / CHECKPOINTS)
            write_json(out / CONFIG_FILE, to_dict(job.config))
            write_json(out / DATA_FILE, {"data": str(job.data), "dataset": dataset_digest(dataset)})
            yield
    except UsageError:
        if new:
            shutil.rmtree(job.out, ignore_errors=True)
        raise


def started_config(out: Path) -> RunConfig | None:
    """The config of the run in `out`, which may have no checkpoint yet; None if no run was started there.

    Raises:
        UsageError: the file can't be read.
    """
    path = out / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        return from_dict(RunConfig, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} can't be read ({error}): leave out --resume to start the run again") from None


def started_dataset(out: Path) -> str:
    """The digest of the dataset of the run in `out`; "" if it is not known."""
    try:
        return str(json.loads((out / DATA_FILE).read_text(encoding="utf-8"))["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def check_same_dataset(digest: str, dataset: PreparedDataset, where: Path) -> None:
    """Raise UsageError if a run was trained with another dataset than `dataset`; the digest "" fits every dataset."""
    if digest and digest != dataset_digest(dataset):
        raise UsageError(
            f"{where} was trained with other data than {dataset.root}: give --data the same dataset, or start another "
            "run with another --out"
        )
