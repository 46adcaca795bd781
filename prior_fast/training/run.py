"""The parts of a training run, and its loop over stages and steps."""

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from rich.progress import Progress, TaskID

from prior_fast.batch import PackedBatch
from prior_fast.config import RunConfig
from prior_fast.console import busy, progress, stdout
from prior_fast.console.quiet import quiet_compiler
from prior_fast.data.dataset_checks import check_files
from prior_fast.data.loader import LoaderConfig, TrainingLoader
from prior_fast.data.on_device import on_device
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.files import write_json
from prior_fast.model.batch_norm import join_batch_norms
from prior_fast.model.build import build_model, check_positions, structure_of
from prior_fast.model.prior import PRIORModel
from prior_fast.ops.linear_sum_assignment import UnsolvableError
from prior_fast.radiology.tokenizer import save_tokenizer
from prior_fast.training.checkpoint import Checkpoint, Position
from prior_fast.training.checkpoint_writer import (
    drop_checkpoints,
    need_checkpoint_space,
    prune_checkpoints,
    save_checkpoint,
)
from prior_fast.training.distributed import Ranks
from prior_fast.training.fill_bank import fill_bank
from prior_fast.training.finite import NotFinite
from prior_fast.training.job import Job
from prior_fast.training.log import LossWindow, RunLog
from prior_fast.training.meter import Meter
from prior_fast.training.profile import record_stage
from prior_fast.training.run_folder import CHECKPOINTS
from prior_fast.training.saving import Saving
from prior_fast.training.schedule import Schedule
from prior_fast.training.signals import StopNow, StopSignals
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer, runs_in_bf16
from prior_fast.training.validate import validate


class Run:
    """The parts of a run, and the loop over stages and steps. The processes of the run meet when each has loaded."""

    def __init__(self, job: Job, dataset: PreparedDataset, ranks: Ranks, checkpoint: Checkpoint | None) -> None:
        config = job.config
        self.config, self.out, self.checkpoint, self.dataset = config, job.out, checkpoint, dataset
        self.position = checkpoint.position if checkpoint else Position()
        # Every rank reads the files, but only one needs to check them for damage.
        if ranks.writes and config.data.verify == "full":
            check_files(dataset.root, dataset.info, "full")
        self.validation = PreparedDataset.open(job.data, "validate") if has_split(dataset, "validate") else None
        with busy("loading the images' source"):
            self.loader = TrainingLoader(dataset, loader_config(config, ranks), ranks.device)
        self.schedule = Schedule(config, len(self.loader))
        with busy("building the model"):
            model, notes = self._model()
        check_positions(structure_of(model), config.data)
        self.ranks = ranks = ranks.joined()
        self.model = model.to(ranks.device).train()
        if ranks.group is not None and config.sync_batch_norm:
            join_batch_norms(self.model, ranks.group, ranks.exchange)
        half = runs_in_bf16(config.precision, ranks.device)
        self.meter = Meter(structure_of(self.model), config.data.max_tokens, ranks, half)
        self.saving = Saving(config, self.position.total_steps)
        self.log: RunLog | None = None
        self.bar: Progress = progress("losses")
        if ranks.writes:
            self._tidy()
            need_checkpoint_space(self.out / CHECKPOINTS, self.model, config.keep_checkpoints)
            save_tokenizer(dataset.tokenizer(), self.out / "tokenizer")
            self.log = RunLog(self.out, self.position)
            stdout.print(
                f"{len(dataset)} training studies, {self.schedule.steps_per_epoch} steps an epoch, "
                f"{self.schedule.total_steps} steps in all, on {ranks.count} x {ranks.device.type}"
            )
            for note in [self.loader.source.description, *notes]:
                stdout.print(note)

    def _model(self) -> tuple[PRIORModel, list[str]]:
        """The model on the CPU, with the weights that the run starts from, and lines about them."""
        if self.checkpoint:
            return self.checkpoint.load_model(), [f"weights from {self.checkpoint.path}"]
        vocabulary = self.dataset.tokenizer().get_vocab()
        return build_model(self.config.model, self.dataset.vocab_size, self.config.seed, vocabulary)

    def _tidy(self) -> None:
        """Remove checkpoints that a killed run left: older than the kept ones, or later than the one it goes on from.

        The later ones are damaged, or belong to steps that are taken again, perhaps in another way.
        """
        folder = self.out / CHECKPOINTS
        if self.checkpoint and self.checkpoint.path.resolve().parent == folder.resolve():
            drop_checkpoints(folder, self.position.total_steps + 1)
            prune_checkpoints(folder, self.config.keep_checkpoints)

    def execute(self, stop_after: int, signals: StopSignals) -> int:
        """Run the remaining stages. Returns 0, or the exit code if a signal stopped the run before its end."""
        started, first = time.perf_counter(), self.position.total_steps
        with self.bar:
            for stage in range(self.position.stage, 4):
                if self._stage(stage, stop_after, signals):
                    break
                if stage < 3:
                    self.position = Position(stage + 1, 0, self.position.total_steps)
        stopped = signals.agreed and self.position.total_steps < self.schedule.total_steps
        self._finish(time.perf_counter() - started, self.position.total_steps - first, signals if stopped else None)
        return signals.exit_code if stopped else 0

    def close(self) -> None:
        if self.log is not None:
            self.log.close()

    def _stage(self, stage: int, stop_after: int, signals: StopSignals) -> bool:
        """Run the steps of one stage. Returns True if the run must stop here."""
        steps = self.schedule.steps(stage)
        fills = self.config.model.use_bank and self.config.model.bank.init == "sentences"
        if stage == 2 and self.position.step == 0 and fills:
            with busy("stage 2: initial prototypes"):
                fill_bank(self.model, self.dataset, self.config, self.ranks, self.position.total_steps)
        with closing(StageTrainer(self.model, stage, self.config, self.ranks)) as trainer:
            return self._steps(trainer, stage, steps, stop_after, signals)

    def _steps(self, trainer: StageTrainer, stage: int, steps: int, stop_after: int, signals: StopSignals) -> bool:
        if self.checkpoint and self.position.step:
            self.checkpoint.load_optimizer(trainer.optimizer, trainer.parameters)
        self.checkpoint = None
        task = self.bar.add_task(f"stage {stage}", total=steps, completed=self.position.step, losses="")
        window = LossWindow()
        self.meter.start_stage(stage)
        made = on_device(self._batches(stage, self.position.step, steps), self.ranks.device)
        batches = self.meter.watch(made)
        profiles = self.config.profile and self.ranks.writes
        with record_stage(self.out, stage, steps - self.position.step, self.ranks.device, profiles) as recorder:
            for number, batch in enumerate(batches):
                # Nothing is lost by stopping at once, in the compilation before all, while the last step is saved. The
                # other ranks would wait for one that stops by itself.
                lossless = self.ranks.group is None and self.saving.saved_at == self.position.total_steps
                compiling = trainer.compiled and number == 0
                try:
                    with (
                        signals.at_once() if lossless else nullcontext(),
                        busy(f"stage {stage}: compiling") if compiling else nullcontext(),
                        quiet_compiler() if compiling else nullcontext(),
                    ):
                        learning_rate, tau = self._step(trainer, batch, window)
                except StopNow:
                    return True
                recorder.step()
                step, total = self.position.step, self.position.total_steps
                asked, due = signals.agree(self.saving.due(total))
                last, stops = step == steps, asked or total == stop_after
                saves = last or stops or due
                validates = last or step % self.schedule.steps_per_epoch == 0
                # Always before validation and checkpoints, whose time belongs to no step.
                if saves or validates or step % self.config.log_every == 0:
                    values = window.close(self.position) | self.meter.close()
                    self._report(task, values, learning_rate, tau)
                if validates:
                    self._validate(trainer, tau)
                if saves:
                    self._save(trainer, tau)
                if stops:
                    signals.over()
                    return True
        return False

    def _step(self, trainer: StageTrainer, batch: PackedBatch, window: LossWindow) -> tuple[float, float]:
        """Take a step and return its learning rate and tau; nothing here waits for the device."""
        stage, step, total = self.position.stage, self.position.step, self.position.total_steps
        # The noise of a step, dropout included, depends only on the seed and the step: resuming needs no state.
        seed_everything(self.config.seed, total, self.ranks)
        learning_rate, tau = self.schedule.learning_rate(stage, step), self.schedule.tau(stage, step)
        context = StepContext(tau, step_seed(self.config.seed, total), self.ranks.group, self.ranks.exchange)
        try:
            terms = trainer.step(batch, context, learning_rate)
        except UnsolvableError:
            # The matching refuses costs that are not finite. An earlier step may say more.
            window.check(self.position)
            raise NotFinite(
                f"stage {stage}, step {step + 1}: the costs of the matching are not finite", total
            ) from None
        window.add(terms)
        self.position = Position(stage, step + 1, total + 1)
        return learning_rate, tau

    def _batches(self, stage: int, step: int, steps: int) -> Iterator[PackedBatch]:
        """The batches of a stage from number `step` on; epoch numbers continue from stage to stage."""
        # The sentence decoder can generate no more prototypes than it has queries.
        queries = self.config.model.sentence_decoder.queries if stage == 3 else 0
        loader = self.loader.limited(queries, self.config.data.partial_reports[stage - 1])
        per_epoch = len(loader)
        epochs_before = sum(self.config.stage_epochs[: stage - 1])
        while step < steps:
            epoch, first = divmod(step, per_epoch)
            for batch in loader.epoch(epochs_before + epoch, first, min(per_epoch, first + steps - step)):
                yield batch
                step += 1

    def _report(self, task: TaskID, values: dict[str, float], learning_rate: float, tau: float) -> None:
        if self.log is None:
            return
        values = {**values, "learning_rate": learning_rate, "tau": tau}
        values["logit_scale"] = float(self.model.logit_scale.detach().exp())
        self.log.write("train", self.position, values)
        shown = f"loss {values['loss']:.3f} global {values['global_alignment']:.3f}"
        speed = f"{values['pairs_per_second']:.0f} pairs/s {values['tokens_per_second'] / 1000:.1f}k tokens/s"
        self.bar.update(
            task,
            completed=self.position.step,
            losses=f"{shown} {speed} {values['data_wait']:.0%} waiting for data",
        )

    def _validate(self, trainer: StageTrainer, tau: float) -> None:
        if self.log is not None and self.validation is not None:
            data = self.validation, self.config, trainer.stage, tau, self.ranks.device
            with busy(f"stage {trainer.stage}: validation", len(self.validation)) as advance:
                values = validate(self.model, *data, trainer.branches, advance)
            self.log.write("validate", self.position, values)
        self.ranks.barrier()

    def _save(self, trainer: StageTrainer, tau: float) -> None:
        if self.ranks.writes:
            folder = self.out / CHECKPOINTS
            state = (self.model, trainer.optimizer, trainer.parameters)
            if self.log is not None:
                self.log.flush()
            with busy("writing a checkpoint"):
                save_checkpoint(folder, self.position, self.config, *state, self.dataset, tau)
                prune_checkpoints(folder, self.config.keep_checkpoints)
        self.saving.done(self.position.total_steps)
        self.ranks.barrier()

    def _finish(self, seconds: float, steps: int, signals: StopSignals | None) -> None:
        """Write metrics.json and print a summary; signals: those that stopped the run, if they did."""
        if not self.ranks.writes:
            return
        done = self.position.total_steps == self.schedule.total_steps
        rate = steps * self.config.batch_size / seconds
        path = self.out / "metrics.json"
        # A finished run that is resumed does nothing: the speed of its steps stays.
        if steps or not (done and says_finished(path)):
            write_json(
                path,
                {
                    **dataclasses.asdict(self.position),
                    "finished": done,
                    "seconds": round(seconds, 1),
                    # Over the whole time, with validation and checkpoints; "speed" leaves them out.
                    "pairs_per_second": round(rate, 1),
                    "speed": self.meter.summary(),
                    "images_replaced": self.loader.source.replaced,
                },
            )
        state = "finished" if done else f"stopped in stage {self.position.stage}; --resume auto goes on"
        if signals is not None:
            kept = ", with a checkpoint" if self.saving.saved_at else ""
            state = (
                f"stopped by {signals.cause} after step {self.position.step} of stage {self.position.stage}{kept} "
                f"(exit code {signals.exit_code}); --resume auto goes on"
            )
        stdout.print(f"{state}: {steps} steps in {seconds:.0f} s, {rate:.0f} pairs/s, in {self.out}")
        if replaced := self.loader.source.replaced:
            stdout.print(f"{replaced} images could not be read or were damaged; the prepared ones were used instead")


def says_finished(path: Path) -> bool:
    """Whether a metrics.json says that the run is finished; False if there is none, or a damaged one."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def loader_config(config: RunConfig, ranks: Ranks) -> LoaderConfig:
    """How this rank's part of each batch is made."""
    return LoaderConfig(config.data, config.batch_size, config.seed, rank=ranks.rank, ranks=ranks.count)


def has_split(dataset: PreparedDataset, split: str) -> bool:
    """Whether the dataset that `dataset` is a split of has studies in the split `split`."""
    return dataset.info["splits"].get(split, {}).get("studies", 0) > 0


def step_seed(seed: int, step: int) -> int:
    """The seed of a step's noise; seeds of different runs are far apart, so that no two runs share a stream."""
    return (seed * 0x9E3779B97F4A7C15 + step) % 2**56


def seed_everything(seed: int, step: int, ranks: Ranks) -> None:
    """Seed torch's generators, which dropout uses, differently for each step and rank."""
    torch.manual_seed(step_seed(seed, step) * 64 + ranks.rank)
