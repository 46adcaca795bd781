"""A step of classification or segmentation never reads a value back to the host, and cuDNN times its convolutions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from torch.utils._python_dispatch import _disable_current_modes

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream import images
from prior_fast.downstream.config import task_config
from prior_fast.downstream.finetune import FineTuning, Place, fine_tune
from prior_fast.downstream.pretrained import open_pretrained
from prior_fast.downstream.splits import make_task
from prior_fast.downstream.tasks import classification
from tests.training.test_no_syncs import HostSync, no_syncs

CASES = {
    "classification": ["blocks=1", "pool=attention"],
    "segmentation": ["decoder_channels=8,8,8,8,8"],
}


@pytest.fixture
def stepper(request: pytest.FixtureRequest, checkpoint: Path, squares: Path, tmp_path: Path) -> FineTuning:
    """A run of the task that the test names, before its first step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    words = ["batch_size=6", "augment=flip", "precision=bf16", f"device={device}", *CASES[request.param]]
    config = task_config(request.param, words)
    dataset = LabelledDataset.open(squares)
    rows = dataset.split("mixed", 100)
    task = make_task(request.param, open_pretrained(checkpoint), dataset, config, device, {"mixed": rows})
    return FineTuning(task, config, rows, Place("mixed", tmp_path, device, Progress(disable=True), lambda: False))


def send(array: np.ndarray, device: torch.device, really=images.to_device) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """`to_device` without the watch: copies from pinned memory to the GPU do not wait."""
    with _disable_current_modes():
        return really(array, device)


@pytest.mark.parametrize("stepper", CASES, indirect=True)
def test_a_step_does_not_wait(stepper: FineTuning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "to_device", send)
    monkeypatch.setattr(classification, "to_device", send)
    batch = stepper.rows.train[:6]
    stepper.model.train()
    stepper._step(batch)  # which fills the optimizer's state
    with no_syncs():
        loss = stepper._step(batch)
    assert torch.isfinite(loss) and stepper.standing.step == 2
    with pytest.raises(HostSync), no_syncs():
        float(loss)


@pytest.mark.parametrize("stepper", ["classification"], indirect=True)
def test_cudnn_times_its_convolutions_while_training(stepper: FineTuning, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(FineTuning, "train", lambda run: seen.append(torch.backends.cudnn.benchmark))
    assert fine_tune(stepper.task, stepper.config, stepper.rows, stepper.place, ()) is None
    assert seen == [True] and not torch.backends.cudnn.benchmark
