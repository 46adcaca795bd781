"""When a run writes checkpoints: after a number of steps or minutes."""

import time
from collections.abc import Callable

from prior_fast.config import RunConfig

# The first checkpoint of a process comes after this time at the latest: what it costs is known early.
FIRST_MINUTES = 1.0


class Saving:
    """Decides after which steps a checkpoint is due.

    Args:
        saved_at: the steps of the run at the checkpoint that it goes on from; 0 without one.
        clock: seconds that pass.

    Attributes:
        saved_at: the steps of the run at the last checkpoint.
    """

    def __init__(self, config: RunConfig, saved_at: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.every, self.minutes = config.checkpoint_every, config.checkpoint_minutes
        self.saved_at, self.clock = saved_at, clock
        self._patience = min(self.minutes, FIRST_MINUTES)
        self._begun = clock()

    def due(self, total_steps: int) -> bool:
        """Whether a checkpoint is due after so many steps of the run, by this process's clock."""
        if self.every and total_steps % self.every == 0:
            return True
        return self.minutes > 0 and self.clock() - self._begun >= 60 * self._patience

    def done(self, total_steps: int) -> None:
        """Note that a checkpoint was written."""
        self.saved_at, self._patience, self._begun = total_steps, self.minutes, self.clock()
