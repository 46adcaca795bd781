"""Fine-tuning on one split: train, choose weights on the validation part, measure them on the test part."""

import csv
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from prior_fast.data.labelled_dataset import Split
from prior_fast.downstream.backbone import train_except, trained_parameters
from prior_fast.downstream.images import batches, draw_flips, epoch_order
from prior_fast.downstream.settings.base import FineTuneConfig
from prior_fast.downstream.state import Standing, Tensors, copy_weights, load_state, save_state, save_weights
from prior_fast.downstream.task import Measured, Task
from prior_fast.errors import RunError
from prior_fast.files import atomic_path, write_json, write_text
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.step import bf16_is_fast

# A state is saved when the duration of the last save is at most this share of the time since then.
SAVING_SHARE = 0.1


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
        The content of result.json; None if the run was stopped before the end.

    Raises:
        UsageError: the saved state can't be read.
        RunError: a loss became non-finite.
    """
    path = place.folder / "result.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    run = FineTuning(task, config, rows, place)
    with cudnn_for_training(benchmark=True):  # images are of one size
        finished = run.train()
    if not finished:
        return None
    result = run.test(notes)
    write_json(path, result)
    shutil.rmtree(run.state_folder, ignore_errors=True)
    return result


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
        self.state_folder = place.folder / "state"
        self.standing, self.best = Standing(), Tensors()
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
        predictions, measured = self._measure(rows)
        header, lines = task.table(predictions, rows)
        with (
            atomic_path(folder / "predictions.csv") as partial,
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([header, *lines])
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
                raise RunError(
                    f"{self.place.name}, epoch {epoch + 1}, step {first + offset}: the loss is {value}; "
                    "lower learning_rate"
                )
        self.standing.losses += values

    def _validate(self, epoch: int) -> None:
        """Validate after an epoch, keep the weights if they are the best, and add a line to the log."""
        standing = self.standing
        _, measured = self._measure(self.rows.validate)
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
        write_text(self.place.folder / "log.jsonl", "".join(json.dumps(each) + "\n" for each in standing.history))

    def _measure(self, rows: Any) -> tuple[Any, Measured]:
        self.model.eval()
        with self._autocast():
            predictions = self.task.predict(self.model, rows)
        return predictions, self.task.measure(predictions, rows)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.place.device.type, torch.bfloat16, enabled=self.half)

    def _save(self) -> None:
        begun = time.perf_counter()
        self.standing.seconds = self._seconds()
        self.started = begun
        save_state(self.state_folder, self.standing, self.model, self.best, self.optimizer)
        self.saved = time.perf_counter()
        self.saving = self.saved - begun

    def _seconds(self) -> float:
        return self.standing.seconds + time.perf_counter() - self.started
