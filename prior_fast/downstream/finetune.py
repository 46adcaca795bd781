"""Fine-tuning on one split: train, choose weights on the validation part, measure them on the test part."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from prior_fast.console import busy
from prior_fast.data.labelled_dataset import Split
from prior_fast.downstream.backbone import train_except, trained_parameters
from prior_fast.downstream.images import batches, draw_flips, epoch_order
from prior_fast.downstream.results import LOG_FILE, RESULT_FILE, read_result
from prior_fast.downstream.settings.base import FineTuneConfig
from prior_fast.downstream.state import (
    Nonfinite,
    Standing,
    Tensors,
    all_finite,
    copy_weights,
    load_state,
    save_state,
    save_weights,
)
from prior_fast.downstream.task import Measured, Task
from prior_fast.errors import RunError
from prior_fast.files import recover, remove_folder, write_text
from prior_fast.files.claim import remove_leftovers
from prior_fast.files.sealed import write_sealed
from prior_fast.model.weights import nonfinite
from prior_fast.tables import csv_text
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.step import bf16_is_fast

LOWER = "start again with a lower learning_rate=... and another --out, since this folder keeps its settings"
UNTRAINED = (
    "no step was taken before it, so the weights or the images are the reason: give another --checkpoint or --data, "
    "and another --out"
)
# A state is saved when the duration of the last save is at most this share of the time since then.
SAVING_SHARE = 0.1
STATE_FOLDER = "state"


@dataclass(frozen=True)
class Place:
    """The surroundings of one split's fine-tuning.

    Attributes:
        name: the name of the split.
        folder: the folder of its files.
        bar: the progress bar.
        asked_to_stop: returns whether the run must stop after the current step.
    """

    name: str
    folder: Path
    device: torch.device
    bar: Progress
    asked_to_stop: Callable[[], bool]


def fine_tune(
    task: Task, config: FineTuneConfig, rows: Split, place: Place, notes: Sequence[str]
) -> dict[str, Any] | None:
    """Fine-tune on a split, continuing from its saved state. The result of a finished split is only read.

    Writes log.jsonl, predictions.csv, model.safetensors, a picture and, last, result.json into the folder.

    notes: notes on the split, for result.json.

    Returns:
        The content of result.json, whose "log" has the lines of log.jsonl; None if the run was stopped before the end.

    Raises:
        UsageError: the saved state or result is damaged.
        RunError: a loss or a weight became non-finite, or the disk is full.
    """
    path = place.folder / RESULT_FILE
    remove_leftovers(place.folder)
    if path.exists():
        result = read_result(place.folder, task.selects)
        # A kill or a power cut may have come before its removal below.
        _remove_state(place.folder)
        return result
    run = FineTuning(task, config, rows, place)
    with cudnn_for_training(benchmark=True):  # images are of one size
        finished = run.train()
    if not finished:
        return None
    result = run.test(notes)
    write_sealed(path, result)
    _remove_state(place.folder)
    return result


def _remove_state(folder: Path) -> None:
    """Remove the saved state of a finished split."""
    if (folder / STATE_FOLDER).exists():
        remove_folder(folder / STATE_FOLDER)


class FineTuning:
    """The training and the test of one split."""

    def __init__(self, task: Task, config: FineTuneConfig, rows: Split, place: Place) -> None:
        self.task, self.config, self.rows, self.place = task, config, rows, place
        self.per_epoch = -(-len(rows.train) // config.batch_size)
        self.total = config.epochs * self.per_epoch
        if config.max_steps:
            self.total = min(self.total, config.max_steps)
        self.half = config.precision == "bf16" or (
            config.precision == "auto" and place.device.type == "cuda" and bf16_is_fast(place.device)
        )
        model, self.frozen = task.build()
        on_gpu = place.device.type == "cuda"
        self.model = model.to(place.device).to(memory_format=torch.channels_last) if on_gpu else model
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        parameters = [parameter for _, parameter in trained_parameters(self.model)]
        self.optimizer = kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        self.state_folder = place.folder / STATE_FOLDER
        self.standing, self.best = Standing(), Tensors()
        # A kill in the middle of a replacement may have left the state under another name.
        recover(self.state_folder)
        if self.state_folder.is_dir():
            self.standing, self.best = load_state(self.state_folder, self.model, self.optimizer)
        self.started = self.saved = time.perf_counter()
        self.saving = 0.0  # seconds that the last save took

    def train(self) -> bool:
        """Take the remaining steps. Returns False, after saving the state, if the run was asked to stop earlier."""
        bar, standing, config = self.place.bar, self.standing, self.config
        shown = bar.add_task(self.place.name, total=self.total, completed=standing.step, losses="")
        while standing.step < self.total:
            epoch, done = divmod(standing.step, self.per_epoch)
            order = epoch_order(self.rows.train, self.config.seed, epoch)
            losses: list[Tensor] = []
            stopped = False
            train_except(self.model, self.frozen)
            for batch in list(batches(order, config.batch_size))[done : done + self.total - standing.step]:
                losses.append(self._step(batch))
                bar.advance(shown)
                stopped = standing.step < self.total and self.place.asked_to_stop()
                if stopped:
                    break
            self._read(losses, epoch)
            due = standing.step % self.per_epoch == 0 and (epoch + 1) % config.validate_every == 0
            if due or standing.step == self.total:
                self._validate(epoch)
                line = standing.history[-1]
                value = line["validate"][self.task.selects]
                chosen = "" if value is None else f" {self.task.selects} {value:.4f}"
                bar.update(shown, losses=f"loss {line['loss']:.4f}{chosen}")
            if stopped:
                self._save()
                return False
            if time.perf_counter() - self.saved > self.saving / SAVING_SHARE:
                self._save()
        return True

    def test(self, notes: Sequence[str]) -> dict[str, Any]:
        """Measure the best weights on the test part and write all files but result.json, whose content is returned."""
        task, folder, rows = self.task, self.place.folder, self.rows.test
        self.model.load_state_dict(self.best)
        predictions, measured = self._measure(rows, "test")
        with busy(f"{self.place.name} test: writing predictions, weights and a picture"):
            header, lines = task.table(predictions, rows)
            write_text(folder / "predictions.csv", csv_text([header, *lines]))
            save_weights(folder / "model.safetensors", self.best)
            with self._autocast():
                task.draw(self.model, predictions, rows, folder)
        chosen = next(line for line in reversed(self.standing.history) if line["best"])
        if chosen["validate"][task.selects] is None:
            notes = [*notes, f"{task.selects} is undefined on the validation part: chosen by its lowest loss"]
        seconds = self._seconds()
        return {
            "split": self.place.name,
            "images": {name: len(getattr(self.rows, name)) for name in ("train", "validate", "test")},
            "steps": self.standing.step,
            "epochs": self.standing.history[-1]["epoch"],
            "best_epoch": chosen["epoch"],
            "validate": chosen["validate"],
            "test": measured.values,
            "undefined": measured.notes,
            "notes": list(notes),
            "seconds": round(seconds, 2),
            "log": self.standing.history,
        }

    def _step(self, batch: Any) -> Tensor:
        """Take a step and return its loss. Nothing here waits for the device, except torchvision's detector."""
        config, step = self.config, self.standing.step
        # The randomness of a step (for example the sampled boxes) depends only on the seed and the step.
        torch.manual_seed((config.seed << 24) + step)
        flips = draw_flips(len(batch), config.seed, step) if config.augment == "flip" else None
        with self._autocast():
            loss = self.task.loss(self.model, batch, flips)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        falls = 0.5 * (1 + math.cos(math.pi * step / self.total)) if config.schedule == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * falls
        self.optimizer.step()
        self.standing.step += 1
        return loss.detach().float()

    def _read(self, losses: list[Tensor], epoch: int) -> None:
        """Read the losses back, all at once, and check them."""
        values = torch.stack(losses).tolist()
        first = len(self.standing.losses) + 1
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                taken = self.standing.step - len(values) + offset
                raise RunError(
                    f"{self.place.name}, epoch {epoch + 1}, step {first + offset}: the loss is {value}; "
                    f"{LOWER if taken else UNTRAINED}"
                )
        self.standing.losses += values

    def _validate(self, epoch: int) -> None:
        """Validate after an epoch, keep the weights if they are the best, and add a line to the log."""
        standing = self.standing
        self._check_weights(epoch)
        _, measured = self._measure(self.rows.validate, "validation")
        value = measured.values[self.task.selects]
        if value is None:
            value = -(measured.values["loss"] or 0.0)
        best = standing.best is None or value > standing.best
        if best:
            standing.best, self.best = value, copy_weights(self.model)
        line = {
            "epoch": epoch + 1,
            "step": standing.step,
            "loss": sum(standing.losses) / len(standing.losses),
            "validate": measured.values,
            "best": best,
        }
        standing.history.append(line)
        standing.losses = []
        write_text(self.place.folder / LOG_FILE, "".join(json.dumps(each) + "\n" for each in standing.history))

    def _check_weights(self, epoch: int) -> None:
        """Raise RunError if a weight is not finite: validation would measure a network that is none any more."""
        state = self.model.state_dict()
        if not all_finite(state.values()):
            odd = nonfinite(state)
            raise RunError(
                f"{self.place.name}, epoch {epoch + 1}: {odd[0]} and {len(odd) - 1} more of the network's tensors are "
                f"not finite; {LOWER}"
            )

    def _measure(self, rows: Any, part: str) -> tuple[Any, Measured]:
        """The predictions for a part's rows and their metrics; part: "validation" or "test", which is shown."""
        self.model.eval()
        name = f"{self.place.name} {part}"
        with busy(name, len(rows)) as advance, self._autocast():
            predictions = self.task.predict(self.model, rows, advance)
        # Average precision of many boxes takes minutes.
        with busy(f"{name}: metrics"):
            return predictions, self.task.measure(predictions, rows)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.place.device.type, torch.bfloat16, enabled=self.half)

    def _save(self) -> None:
        begun = time.perf_counter()
        self.standing.seconds = self._seconds()
        self.started = begun
        try:
            with busy(f"{self.place.name}: writing its state"):
                save_state(self.state_folder, self.standing, self.model, self.best, self.optimizer)
        except Nonfinite as error:
            raise RunError(f"{self.place.name}, {error}; {LOWER}") from None
        self.saved = time.perf_counter()
        self.saving = self.saved - begun

    def _seconds(self) -> float:
        return self.standing.seconds + time.perf_counter() - self.started
