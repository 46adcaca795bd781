"""SIIM-ACR's run-length encoding of masks.

A mask is a list of number pairs, offset and length. The offset of the first pair counts from the image's first pixel,
the other offsets from the end of the previous run. Pixels are numbered down the columns, from left to right. Other
competitions use absolute positions instead of offsets.
"""

import numpy as np

# No image has so many pixels; Python refuses to convert numbers that are far longer.
_MOST_DIGITS = 100


def decode_rle(text: str, rows: int, columns: int) -> np.ndarray:
    """The mask of one run-length encoding: bool [rows, columns].

    Raises:
        ValueError: the text is not a list of pairs of non-negative integers, or a run exceeds the image.
    """
    words = text.split()
    if bad := [word for word in words if not (word.isascii() and word.isdigit())]:
        raise ValueError(f"the RLE has {bad[0][:20]!r} where a number belongs")
    if not words or len(words) % 2:
        raise ValueError(f"the RLE has {len(words)} numbers, not pairs")
    if (digits := max(map(len, words))) > _MOST_DIGITS:
        raise ValueError(f"the RLE has a number of {digits} digits")
    numbers, size = [int(word) for word in words], rows * columns
    if sum(numbers) > size:
        raise ValueError(f"the RLE runs to pixel {sum(numbers)} of an image of {rows} x {columns} = {size}")
    values = np.tile([False, True], len(numbers) // 2)
    filled = np.repeat(np.append(values, False), [*numbers, size - sum(numbers)])
    return filled.reshape(columns, rows).T


def encode_rle(mask: np.ndarray) -> str:
    """The run-length encoding of a bool mask [rows, columns] that has a pixel set."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return " ".join(map(str, np.diff(changes, prepend=0)))
