"""Run-length encodings: a mask of the image's size that encodes to itself, or ValueError in one line."""

import numpy as np

from prior_fast.radiology.rle import decode_rle, encode_rle


def target(data: bytes) -> None:
    """The first two bytes are the rows and columns less one."""
    if len(data) < 2:
        return
    rows, columns = data[0] + 1, data[1] + 1
    try:
        mask = decode_rle(data[2:].decode("utf-8", "replace"), rows, columns)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 300, str(error)[:300]
        return
    assert mask.shape == (rows, columns) and mask.dtype == bool
    if mask.any():
        assert np.array_equal(decode_rle(encode_rle(mask), rows, columns), mask)
