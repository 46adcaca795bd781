"""JSON files that hold their own digest, so that a changed value is noticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prior_fast.files.atomic import write_json

_SEAL = "seal"


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON with one more entry, `seal`: the SHA-256 of the others."""
    write_json(path, {**value, _SEAL: _digest(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The entries of a JSON file, without the seal. A file without a seal is not compared.

    Raises:
        ValueError: it is no JSON object, or its entries are not those that were sealed.
        OSError: it can't be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    seal = value.pop(_SEAL, None)
    if seal is not None and seal != _digest(value):
        raise ValueError("its content was changed or damaged: the seal does not fit")
    return value


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
