"""Sealed JSON, facts of files, tensors, free space."""

import errno
import json
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from prior_fast.errors import RunError, UsageError
from prior_fast.files.facts import check_file, file_facts
from prior_fast.files.sealed import read_sealed, write_sealed
from prior_fast.files.space import explained, need_space, shown_bytes
from prior_fast.files.tensors import load_tensors, save_tensors

VALUE: dict[str, Any] = {"a": 1, "b": [0.1, "é", None, True], "c": {"d": 1e-300, "e": ""}}


def test_a_sealed_file_is_read_back_without_its_seal(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", VALUE)
    assert read_sealed(tmp_path / "a.json") == VALUE
    assert "seal" in json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps(VALUE))
    assert read_sealed(tmp_path / "old.json") == VALUE


def test_no_flipped_bit_changes_what_a_sealed_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, VALUE)
    whole, noticed = path.read_bytes(), 0
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                # A flip in white space changes nothing. One in the word "seal" adds a key that nobody reads.
                found = read_sealed(path)
                assert {name: found[name] for name in VALUE} == VALUE and len(found) <= len(VALUE) + 1
            except ValueError:
                noticed += 1
    assert noticed > 7 * len(json.dumps(VALUE))


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"seal": 1}', '{"a": 1, "seal": "0"}'])
def test_what_is_no_sealed_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError):
        read_sealed(tmp_path / "a.json")


@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_every_changed_byte_of_a_file_is_noticed(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("facts")
    (folder / "below").mkdir()
    (folder / "below" / "a").write_bytes(b"some content")
    (folder / "b").write_bytes(b"")
    facts = file_facts(folder)
    assert list(facts) == ["b", "below/a"] and facts["b"]["bytes"] == 0
    for name in facts:
        check_file(folder, facts, name)
    data = bytearray(b"some content")
    data[position % len(data)] ^= 1 << bit
    (folder / "below" / "a").write_bytes(data)
    with pytest.raises(UsageError, match="below/a was changed or damaged"):
        check_file(folder, facts, "below/a")
    (folder / "b").unlink()
    with pytest.raises(UsageError, match="/b is missing"):
        check_file(folder, facts, "b")


def test_tensors_are_written_contiguous_and_detached(tmp_path: Path) -> None:
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    save_tensors(tmp_path / "a", {"x": x.T, "n": torch.tensor(3)})
    found = load_tensors(tmp_path / "a")
    assert torch.equal(found["x"], x.detach().T) and found["n"] == 3


def test_a_failed_write_of_tensors_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **more: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError) as caught:
        save_tensors(tmp_path / "a", {})
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a")


def test_a_missing_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        save_tensors(tmp_path / "absent" / "a", {"x": torch.zeros(1)})
    assert caught.value.errno == errno.ENOENT


def test_damaged_tensors_are_refused_with_their_path(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a"
    save_tensors(path, {"x": torch.zeros(3)})
    whole = path.read_bytes()
    damaged = [b"", whole[:7], whole[:-1], b"\xff" * 8 + whole[8:], rng.bytes(200), whole[:8] + b"\xff" + whole[9:]]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UsageError, match=f"^{path} can't be read"):
            load_tensors(path)
    with pytest.raises(UsageError, match="can't be read"):
        load_tensors(tmp_path)


def test_too_little_space_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    asked = []

    def free(path: Path) -> usage:
        asked.append(path)
        return usage(10**12, 0, 2_500_000)

    monkeypatch.setattr("shutil.disk_usage", free)
    need_space(tmp_path / "a" / "b", 2_500_000, "it")
    assert asked == [tmp_path]  # the folder may not exist yet
    with pytest.raises(RunError, match=f"^it needs 2.5 MB in {tmp_path}/a, where 2.5 MB are free: free some$"):
        need_space(tmp_path / "a", 2_500_001, "it")


def test_a_full_disk_is_told_with_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"no space is left for {tmp_path} \(\d[\d.]* \w+ free\)"), explained(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_250_000, "1.2 MB"), (5e9, "5.0 GB"), (7e15, "7000.0 TB")],
)
def test_bytes_for_people(count: int, shown: str) -> None:
    assert shown_bytes(count) == shown
