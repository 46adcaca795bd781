"""Converts `key=value` settings and dictionaries to and from the typed config."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar, get_args, get_origin

from prior_fast.errors import UsageError
from prior_fast.spelling import nearest

Config = TypeVar("Config")

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def apply_overrides(config: Config, words: Iterable[str]) -> Config:
    """`config` with fields changed by settings like `batch_size=64` or `model.bank.prototypes=256`.

    Tuples are written with commas: `stage_epochs=20,30,50`.

    Raises:
        UsageError: a setting without "=", an unknown key (the message names the nearest), or a value of the wrong type.
    """
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not of the form key=value")
        known = list(field_names(config))
        if key not in known:
            raise UsageError(f"unknown setting {key!r}{nearest(key, known)}")
        config = _replace(config, key.split("."), key, text)
    return config


def field_names(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all fields, nested ones included, that are not configs themselves."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_names(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def field_value(config: Any, name: str) -> Any:
    """The value of a field by its dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def setting_text(config: Any, name: str) -> str:
    """The value of a field as `apply_overrides` reads it: `20,30,50`, `1e-5`, `true`."""
    value = field_value(config, name)
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace("e-0", "e-") if isinstance(value, float) else str(value)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as nested dictionaries of JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`.

    Raises:
        UsageError: a key that `kind` does not have.
    """
    hints = typing.get_type_hints(kind)
    unknown = [name for name in values if name not in hints]
    if unknown:
        raise UsageError(f"unknown setting {unknown[0]!r} in a saved configuration{nearest(unknown[0], hints)}")
    return kind(**{name: _from_json(hints[name], value) for name, value in values.items()})


def _from_json(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value)
    return tuple(value) if isinstance(value, list) else value


def _replace(config: Any, path: list[str], key: str, text: str) -> Any:
    name, rest = path[0], path[1:]
    if rest:
        value = _replace(getattr(config, name), rest, key, text)
    else:
        field = type(config).__dataclass_fields__[name]
        if not text and field.default == ():  # what `setting_text` writes for an empty tuple
            return dataclasses.replace(config, **{name: ()})
        value = _parse(typing.get_type_hints(type(config))[name], key, text)
        choices = field.metadata.get("choices", ())
        if choices and value not in choices:
            raise UsageError(f"{key}={text}: choose from {', '.join(map(str, choices))}")
    return dataclasses.replace(config, **{name: value})


def _parse(hint: Any, key: str, text: str) -> Any:
    if get_origin(hint) is tuple:
        return _parse_tuple(hint, key, text)
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise UsageError(f"{key}={text}: choose from {', '.join(map(str, get_args(hint)))}")
        return text
    if hint is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise UsageError(f"{key}={text}: choose true or false")
        return text.lower() in _TRUE
    try:
        return hint(text)
    except ValueError:
        raise UsageError(f"{key}={text}: must be {_KINDS[hint]}") from None


_KINDS = {int: "a whole number", float: "a number"}


def _parse_tuple(hint: Any, key: str, text: str) -> tuple[Any, ...]:
    kinds, parts = get_args(hint), text.split(",")
    if isinstance(kinds[-1], types.EllipsisType):
        kinds = (kinds[0],) * len(parts)
    if len(parts) != len(kinds):
        raise UsageError(f"{key}={text}: needs {len(kinds)} values separated by commas, got {len(parts)}")
    return tuple(_parse(kind, key, part) for kind, part in zip(kinds, parts))
