"""The files of chunks: whatever happens to one, it is noticed and the chunk is made again."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from prior_fast.errors import RunError
from prior_fast.prepare.chunk_file import read_chunk, read_record, sound_chunk, stored_bytes, write_chunk

RECORD = {"a": [1, None, 0.1], "text": "Ä\0"}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 224, 224), np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chunk") / "chunk-000003-abc.bin"
    write_chunk(path, RECORD, IMAGES)
    return path


def test_what_was_written_is_read(path: Path, tmp_path: Path) -> None:
    record, images = read_chunk(path)
    assert record == RECORD == read_record(path)
    np.testing.assert_array_equal(images, IMAGES)
    write_chunk(tmp_path / "none.bin", [], IMAGES[:0])
    found = sound_chunk(tmp_path / "none.bin")
    assert found is not None and found[0] == [] and found[1].shape == (0, 224, 224)
    assert [stored_bytes(path.parent, "chunk", numbers) for numbers in ([3], [4])] == [path.stat().st_size, 0]


@settings(max_examples=60)
@given(strategies.data())
def test_a_flipped_bit_is_noticed(path: Path, data: strategies.DataObject) -> None:
    content = bytearray(path.read_bytes())
    place = data.draw(strategies.one_of(strategies.integers(0, 120), strategies.integers(0, len(content) - 1)))
    content[place] ^= 1 << data.draw(strategies.integers(0, 7))
    damaged = path.with_name("damaged.bin")
    damaged.write_bytes(content)
    assert sound_chunk(damaged) is None
    with pytest.raises(RunError, match="removed or damaged just now; start the same command again"):
        read_chunk(damaged)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100, b"PK\3\4" + b"\0" * 400])
def test_what_is_no_chunk(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    assert sound_chunk(path) is None and sound_chunk(tmp_path) is None and sound_chunk(tmp_path / "none") is None
    with pytest.raises(RunError):
        read_record(path)
