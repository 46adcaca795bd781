"""What a config's settings are: value, type or choices, and meaning, as texts."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from prior_fast.config.overrides import setting_text
from prior_fast.config.setting import DEVICE

_KINDS = {int: "whole number", float: "number", str: "text", bool: "true|false"}
_MANY = {"whole number": "whole numbers", "number": "numbers", "text": "texts"}
# Settings of configs that do not say what they mean.
_EVERYWHERE = {"device": DEVICE}
_ATTRIBUTE = re.compile(r"(\w+(?:, \w+)*): (.+)")


@dataclass(frozen=True)
class Described:
    """A setting.

    Attributes:
        name: its dotted name.
        text: its value, as `key=value` words have it.
        kind: its type or its choices: "whole number", "auto|bf16|fp32".
        choices: its values, if these are few.
        meaning: what it is; "" if nothing says it.
    """

    name: str
    text: str
    kind: str
    choices: tuple[str, ...]
    meaning: str

    @property
    def word(self) -> str:
        """The setting with its value: `batch_size=64`."""
        return f"{self.name}={self.text}"


def describe(config: Any) -> list[Described]:
    """All settings of a config, nested ones included, in the order of the fields."""
    return list(_described(config, config, ""))


def _described(config: Any, part: Any, prefix: str) -> Iterator[Described]:
    hints, told = typing.get_type_hints(type(part)), _attributes(type(part))
    for field in dataclasses.fields(part):
        value, name = getattr(part, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from _described(config, value, f"{name}.")
            continue
        kind, choices = _kind(hints[field.name], field.metadata.get("choices", ()))
        meaning = field.metadata.get("meaning") or told.get(field.name) or _EVERYWHERE.get(field.name, "")
        yield Described(name, setting_text(config, name), kind, choices, meaning)


def _kind(hint: Any, choices: tuple[Any, ...]) -> tuple[str, tuple[str, ...]]:
    """The type of a field in words, and its choices."""
    if choices or get_origin(hint) is Literal:
        words = tuple(map(str, choices or get_args(hint)))
        return "|".join(words), words
    if get_origin(hint) is tuple:
        first, *rest = get_args(hint)
        many = _MANY[_KINDS[first]]
        return f"{many} with commas" if isinstance(rest[-1], types.EllipsisType) else f"{1 + len(rest)} {many}", ()
    return _KINDS[hint], ("true", "false") if hint is bool else ()


def _attributes(kind: type) -> dict[str, str]:
    """The texts of the section "Attributes:" in the docstrings of a class and those that it is made of."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        lines = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2].split("\n")
        names: list[str] = []
        for line in lines:
            start = _ATTRIBUTE.fullmatch(line.removeprefix("    ")) if line[4:5].strip() else None
            if start:
                names = start[1].split(", ")
                found |= dict.fromkeys(names, start[2])
            elif line.startswith("        "):
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
            else:
                names = []
    return {name: text.rstrip(".") for name, text in found.items()}
