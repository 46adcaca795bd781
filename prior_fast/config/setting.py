"""A field of a config with its meaning, which `--settings`, --help and the pages show."""

from dataclasses import field
from typing import Any


def setting(default: Any, meaning: str, choices: tuple[Any, ...] = ()) -> Any:
    """A dataclass field with a default and its meaning.

    Args:
        meaning: a few words that tell a user what it is, with the unit; what special values mean.
        choices: the only values, of a field whose type does not say them (`Literal` does).
    """
    return field(default=default, metadata={"meaning": meaning, "choices": choices})


DEVICE = "where it is computed; auto: on a GPU if there is one"
