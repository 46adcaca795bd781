"""Checks that a manifest's rows fit the images, sentences and tokens of its prepared dataset."""

from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.errors import UsageError


def check_range(path: Path, name: str, begins: np.ndarray, ends: np.ndarray, count: int, least: int) -> None:
    """Refuse ranges of rows that are shorter than `least` or lead outside 0 to `count`.

    name: what the rows are: "image" or "sentence".

    Raises:
        UsageError: the message names the file and the columns.
    """
    wrong = (begins < 0) | (ends < begins + least) | (ends > count)
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"{path}: {name}_begin, {name}_end of row {row} are {begins[row]}, {ends[row]}, which does not fit the "
            f"dataset's {count} {name}s; prepare the dataset again"
        )


def check_tokens(root: Path, info: dict[str, Any], offsets: np.ndarray, tokens: np.ndarray) -> None:
    """Refuse offsets that do not rise from 0 to the number of tokens, and tokens that the tokenizer does not have.

    Raises:
        UsageError: the message names the file.
    """
    path = root / "sentence_offsets.npy"
    if offsets[0] != 0 or offsets[-1] != len(tokens) or (offsets[1:] < offsets[:-1]).any():
        raise UsageError(f"{path} does not rise from 0 to {len(tokens)}, the tokens; prepare the dataset again")
    size = info["tokenizer"]["vocab_size"]
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < size:
        raise UsageError(
            f"{root / 'tokens.npy'} holds tokens from {tokens.min()} to {tokens.max()}, but tokenizer.vocab_size is "
            f"{size}; prepare the dataset again"
        )


def check_lengths(path: Path, name: str, lengths: np.ndarray, wanted: np.ndarray) -> None:
    """Refuse a column of lists whose lengths are not those that other columns give.

    Raises:
        UsageError: the message names the file and the column.
    """
    if not np.array_equal(lengths, wanted):
        row = int((lengths != wanted).argmax())
        raise UsageError(
            f"{path}: the column {name!r} has {lengths[row]} entries in row {row}, not {wanted[row]}; prepare the "
            "dataset again"
        )
