"""A share of the chunks of a dataset, for one of several jobs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from prior_fast.errors import UsageError

Task = TypeVar("Task")


@dataclass(frozen=True, order=True)
class Shard:
    """Shard `index` of `count`; the first is 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "I/N" names.

        Raises:
            UsageError: the text has another form, N is below 1, or I is not from 1 to N.
        """
        match = re.fullmatch(r"\s*(-?[0-9]{1,9})/(-?[0-9]{1,9})\s*", text)
        if not match:
            raise UsageError(f"--shard must be I/N, such as 1/8 for the first of 8 shards, not {text!r}")
        shard = cls(int(match[1]), int(match[2]))
        if shard.count < 1:
            raise UsageError(f"--shard {text}: there must be 1 shard or more, not {shard.count}")
        if not 1 <= shard.index <= shard.count:
            raise UsageError(
                f"--shard {text}: the shards of {shard.count} are 1/{shard.count} to {shard.count}/{shard.count}"
            )
        return shard

    def share(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """The chunks of this shard."""
        return tasks[self.index - 1 :: self.count]
