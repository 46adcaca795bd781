"""What a run gives each of its steps: the learning rate, the bank's temperature, the noise's seed and the sentences."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prior_fast.batch import PackedBatch
from prior_fast.cli.main import main
from prior_fast.config import RunConfig, apply_overrides, preset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.training.schedule import Schedule
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer

QUERIES = 4
STEPS = 3  # of each stage
BATCH = 4


@dataclass(frozen=True)
class Taken:
    """A step that a run has taken; seed: that of its noise; sentences: the number of each report in `studies`."""

    stage: int
    learning_rate: float
    tau: float | Tensor
    seed: int | None
    studies: list[int]
    sentences: list[int]


@dataclass(frozen=True)
class RunSteps:
    """The steps of a run, in order."""

    config: RunConfig
    schedule: Schedule
    steps: list[Taken]

    def of(self, stage: int) -> list[Taken]:
        return [step for step in self.steps if step.stage == stage]


@pytest.fixture(scope="module")
def run(small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunSteps:
    """A short run with few queries in the sentence decoder; its steps compute nothing."""
    words = [*small_settings, f"model.sentence_decoder.queries={QUERIES}", f"batch_size={BATCH}"]
    words += ["data.partial_reports=0,1,0", f"max_steps_per_stage={STEPS}", "warmup_epochs=0.13,0.13,0.13"]
    steps: list[Taken] = []

    def step(
        trainer: StageTrainer, batch: PackedBatch, context: StepContext, learning_rate: float
    ) -> dict[str, Tensor]:
        assert trainer.model.training
        counts = batch.cu_sentences.diff().tolist()
        ids = batch.study_ids.tolist()
        steps.append(Taken(trainer.stage, learning_rate, context.tau, context.seed, ids, counts))
        return {"loss": torch.tensor(1.0), "global_alignment": torch.tensor(1.0)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageTrainer, "step", step)
        out = tmp_path_factory.mktemp("run") / "run"
        assert main(["train", "--preset", "tiny", "--data", str(small_store), "--out", str(out), *words]) == 0
    config = apply_overrides(preset("tiny"), words)
    return RunSteps(config, Schedule(config, len(PreparedDataset.open(small_store, "train")) // BATCH), steps)


def test_tau_falls_from_step_to_step_of_stage_2_and_does_not_restart_in_stage_3(run: RunSteps) -> None:
    bank = run.config.model.bank
    taus = [float(step.tau) for stage in (2, 3) for step in run.of(stage)]
    assert len(taus) == 2 * STEPS
    assert taus[0] == bank.tau_start and taus[-1] == pytest.approx(bank.tau_end)
    assert all(later < earlier for earlier, later in pairwise(taus))
    assert taus == [run.schedule.tau(stage, number) for stage in (2, 3) for number in range(STEPS)]


def test_the_learning_rates_cosine_restarts_in_each_stage(run: RunSteps) -> None:
    for stage in (1, 2, 3):
        rates = [step.learning_rate for step in run.of(stage)]
        assert rates == [run.schedule.learning_rate(stage, number) for number in range(STEPS)]
        # The warm-up is the first step.
        assert rates[1] == pytest.approx(run.config.learning_rate[stage - 1])
        assert rates[1] > rates[2] > 0


def test_stage_3_gets_no_more_sentences_than_the_decoder_has_queries(run: RunSteps) -> None:
    for stage in (1, 2, 3):
        counts = [count for step in run.of(stage) for count in step.sentences]
        assert max(counts) == QUERIES if stage == 3 else max(counts) > QUERIES


def test_a_stage_reads_reports_in_part_as_its_setting_says(run: RunSteps, small_store: Path) -> None:
    dataset = PreparedDataset.open(small_store, "train")
    whole = dict(zip(dataset.study_ids.tolist(), dataset.sentence_counts.tolist()))
    for stage in (1, 2, 3):
        found = [pair for step in run.of(stage) for pair in zip(step.studies, step.sentences, strict=True)]
        limit = QUERIES if stage == 3 else max(whole.values())
        cut = [count < min(whole[study], limit) for study, count in found]
        assert sum(cut) > len(cut) / 2 if stage == 2 else not any(cut)


def test_each_step_has_noise_of_its_own(run: RunSteps) -> None:
    seeds = [step.seed for step in run.steps]
    assert None not in seeds and len(set(seeds)) == len(seeds) == 3 * STEPS
