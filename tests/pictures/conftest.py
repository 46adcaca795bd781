"""A small store, and a run of a random model with a log, made once."""

import json
from pathlib import Path

import pytest
import torch

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.encode import Encoder
from prior_fast.pictures.config import PictureInputs, PicturesConfig
from prior_fast.training.checkpoint import open_checkpoint
from tests.evaluation.fake_store import write_checkpoint, write_store

STAGE_TERMS = {
    1: ("loss", "global_alignment", "local_image", "local_text"),
    2: ("loss", "global_alignment", "local_image", "local_text", "prototype"),
    3: ("loss", "global_alignment", "prototype", "image_reconstruction", "prototype_kl"),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("data") / "store", per_class=4)


@pytest.fixture(scope="session")
def run_folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of stage 3 and a log whose last line is truncated."""
    run = tmp_path_factory.mktemp("run")
    write_checkpoint(run / "checkpoints", store, stage=3)
    lines, total = [], 0
    for stage, terms in STAGE_TERMS.items():
        for step in range(1, 13):
            total += 1
            position = {"stage": stage, "step": step, "total_steps": total}
            values = {term: (1 + index) / step for index, term in enumerate(terms)}
            lines.append({"kind": "train", **position, **values, "tau": 0.5, "pairs_per_second": 10.0})
            if step % 4 == 0:
                lines.append({"kind": "validate", **position, **values})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tra')
    return run


@pytest.fixture
def inputs(store: Path, run_folder: Path, tmp_path: Path) -> PictureInputs:
    """The inputs of the sections, for a checkpoint of stage 3."""
    encoder = Encoder(open_checkpoint(run_folder), "cpu")
    return PictureInputs(encoder, PreparedDataset.open(store, "test"), PicturesConfig(count=2), tmp_path)
