"""The steps of a run, and the learning rate and temperature at each step."""

import math
from dataclasses import dataclass

from prior_fast.config import RunConfig
from prior_fast.model.prototypes import temperature


@dataclass(frozen=True)
class Schedule:
    """The steps of each stage, and the values that change from step to step.

    Attributes:
        config: the run's config.
        steps_per_epoch: batches of the training split.
    """

    config: RunConfig
    steps_per_epoch: int

    def steps(self, stage: int) -> int:
        """Steps of stage 1, 2 or 3."""
        steps = self.config.stage_epochs[stage - 1] * self.steps_per_epoch
        limit = self.config.max_steps_per_stage
        return min(steps, limit) if limit else steps

    @property
    def total_steps(self) -> int:
        return sum(self.steps(stage) for stage in (1, 2, 3))

    def learning_rate(self, stage: int, step: int) -> float:
        """Linear warm-up, then a cosine to zero, anew in each stage; step counts from 0.

        The cosine is from supplement 2.4. The warm-up, the zero and the restart are the released code's.
        """
        peak = self.config.learning_rate[stage - 1]
        start = self.config.learning_rate_start[stage - 1]
        steps = self.steps(stage)
        warmup = min(round(self.config.warmup_epochs[stage - 1] * self.steps_per_epoch), steps - 1)
        if step < warmup:
            # The last step of the warm-up is at the peak, as in the released code's scheduler.
            return start + (peak - start) * step / max(warmup - 1, 1)
        return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

    def tau(self, stage: int, step: int) -> float:
        """Temperature of the bank: it decays from start to end (supplement 2.3), over stages 2 and 3 together.

        These are the stages of the released code's decays; its own experiment keeps the temperature fixed.
        """
        done = 0 if stage <= 2 else self.steps(2)
        last = max(self.steps(2) + self.steps(3) - 1, 1)
        return temperature(self.config.model.bank, min((done + step) / last, 1.0))
