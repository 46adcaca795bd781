"""Damaged weight files, and files made to harm, are refused by one line that names the file, and soon."""

import json
import os
import pickle
import random
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from prior_fast.cli.main import main
from prior_fast.errors import RunError, UsageError
from prior_fast.model.image_encoder import ResNet
from prior_fast.model.prior import PRIORModel
from prior_fast.weights.convert import convert, inspect
from prior_fast.weights.structure import image_structure
from tests.released_files import released_names

MUTATED = 300


class Hang(BaseException):
    """No `Exception`, so that nothing takes it for an error of the file."""


@pytest.fixture(autouse=True)
def _guard() -> Iterator[None]:
    """Ends a test that hangs, since the suite would with it."""

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def encoder() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: tensor.clone() for name, tensor in ResNet((1,), 8).state_dict().items()}


def refused(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> str:
    """The one line by which the command refuses a file, to inspect and to convert."""
    said = []
    for words in (["inspect", str(path)], ["convert", str(path), "--out", str(tmp_path / "out")]):
        capsys.readouterr()
        assert main(["weights", *words]) in (1, 2)
        shown = capsys.readouterr()
        said.append((shown.err or shown.out).strip())
        assert not (tmp_path / "out").exists()
    assert said[1].startswith("prior-fast: ") and str(path) in said[1] and "\n" not in said[1]
    return said[1]


def safetensors_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2,), begin: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        (b"{}", b"", 100 * 2**30, "header too large"),
        (b"{}", b"", 2**63, "header too large"),
        ({"conv1.weight": entry(), "bn1.weight": entry(begin=4, end=12)}, bytes(12), None, "invalid offset"),
        (b'{"\xff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8), None, "UTF-8"),
        ({"conv1.weight": entry(shape=(), end=4)}, bytes(4), None, "shape []; the model needs 4 sizes"),
        ({"conv1.weight": entry(shape=(2**40, 0, 1, 1), end=0)}, b"", None, "sizes from 1 to 1048576"),
        ({"conv1.weight": entry("F8_E8M0", (8,))}, bytes(8), None, "only dense tensors of plain numbers"),
        ({"conv1.weight": entry("C64", (1,))}, bytes(8), None, "only dense tensors of plain numbers"),
        ({"conv1.\nweight": entry()}, bytes(8), None, "whose name is no name of a part: 'conv1.\\nweight'"),
        ({"x" * 10**5: entry()}, bytes(8), None, "whose name is no name of a part"),
        ({}, b"", None, "neither an image encoder nor a whole model"),
    ],
)  # fmt: skip
def test_a_damaged_safetensors_file(
    header: Any, data: bytes, length: int | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = safetensors_file(tmp_path / "file.safetensors", header, data, length)
    assert message in refused(path, tmp_path, capsys)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_file_of_tensors(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / f"file{suffix}"
    path.touch()
    assert "is empty" in refused(path, tmp_path, capsys)
    path.write_text("hello\n")
    assert "can't be read as a file of tensors" in refused(path, tmp_path, capsys)
    path.unlink()
    os.mkfifo(path)
    assert "there is no such file" in refused(path, tmp_path, capsys)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="is a folder: give the weight file in it"):
        inspect(path)


def test_a_file_cut_in_half(encoder: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for suffix, save in ((".pt", torch.save), (".safetensors", safetensors.torch.save_file)):
        path = tmp_path / f"file{suffix}"
        save(encoder, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "can't be read as a file of tensors" in refused(path, tmp_path, capsys)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda x: x.to_sparse(), "sparse_coo, conv1.weight"),
        (lambda x: x.to("meta"), "does not hold all values of conv1.weight"),
        (lambda x: torch.zeros(1).expand(8, 1, 10**5, 10**5), "does not hold all values of conv1.weight"),
        (lambda x: x.to(torch.int64), "conv1.weight holds int64, the model's tensor float32"),
        (lambda x: x.to(torch.complex64), "complex64, conv1.weight"),
    ],
)
def test_tensors_that_are_no_plain_numbers(
    tensor: Callable[[torch.Tensor], torch.Tensor], message: str, encoder: dict[str, torch.Tensor], tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    torch.save({**encoder, "conv1.weight": tensor(encoder["conv1.weight"])}, tmp_path / "file.pt")
    assert message in refused(tmp_path / "file.pt", tmp_path, capsys)


@pytest.mark.parametrize("number", ["3000000000", "3000", "99", "9" * 250])
def test_a_number_in_a_key_is_no_number_of_layers(
    number: str, encoder: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    key = f"layer1.{number}.conv1.weight"
    torch.save({**encoder, key: torch.zeros(2)}, tmp_path / "file.pt")
    found = inspect(tmp_path / "file.pt")
    assert found.image.depths == (1,) and found.names.unknown == [key]
    assert "1 tensors that no part of the model uses" in refused(tmp_path / "file.pt", tmp_path, capsys)


def test_a_gap_in_the_layers_is_missed(encoder: dict[str, torch.Tensor]) -> None:
    keys = dict(encoder)
    for name in encoder:
        if name.startswith("layer1.0."):
            keys[name.replace("layer1.0.", "layer1.2.")] = encoder[name]
    assert image_structure(keys).depths == (3,)
    many = {**encoder, **{f"layer1.{number}.bn1.bias": torch.zeros(1) for number in range(5000)}}
    assert image_structure(many).depths == (100,)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sentence_bank.embed.weight", torch.zeros(3, 0), r"embed.weight has shape \[3, 0\]; the model needs 2 sizes"),
        ("sentence_bank.embed.weight", torch.zeros(3), r"embed.weight has shape \[3\]"),
        ("sentence_bank.embed.weight", torch.zeros(3, 200), "its sentence decoder has width 200, which is no multiple"),
        ("prototype_queries", torch.zeros(()), r"sentence_decoder.queries has shape \[\]"),
    ],
)
def test_sizes_that_no_model_has(
    name: str, value: torch.Tensor, message: str, model: PRIORModel, tmp_path: Path
) -> None:
    torch.save({**released_names(model), name: value}, tmp_path / "file.pt")
    with pytest.raises(UsageError, match=message):
        inspect(tmp_path / "file.pt")


@pytest.mark.parametrize(
    "facts",
    [
        {"epoch": 10**400},
        {"epoch": 10**7},
        {"epoch": -1},
        {"hyper_parameters": {"stage1_epochs": 10**30}},
        {"hyper_parameters": {"temp_decay": "x" * 10**5}},
        {"hyper_parameters": {"gahter_pool": {"a": torch.zeros(99)}}},
    ],
)
def test_facts_that_no_training_wrote(
    facts: dict[str, Any], model: PRIORModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save({"state_dict": released_names(model), **facts}, tmp_path / "file.ckpt")
    assert len(refused(tmp_path / "file.ckpt", tmp_path, capsys)) < 500


def test_tensors_that_share_their_memory_are_converted(encoder: dict[str, torch.Tensor], tmp_path: Path) -> None:
    shared = {**encoder, "bn1.bias": encoder["bn1.weight"]}
    torch.save(shared, tmp_path / "file.pt")
    convert(tmp_path / "file.pt", tmp_path / "out", None)
    written = safetensors.torch.load_file(tmp_path / "out" / "resnet.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in shared.items())


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes: bits, bytes, and pieces that are cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        # Half of the changes are near the beginning, where the names and sizes are.
        place = rng.randrange(min(len(data), 600 if rng.random() < 0.5 else len(data)) or 1)
        length = rng.choice([1, 1, 2, 8, 40])
        kind = rng.randrange(6)
        if kind < 2:
            data[place : place + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in data[place : place + 1])
        elif kind == 2:
            data[place : place + length] = rng.randbytes(length)
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[rng.randrange(len(data) or 1) :][:length]
        else:
            data[place : place + length] = rng.choice([b"\0", b"\xff", b"9", b"-", b"]"]) * length
    return bytes(data)


def with_pickle(source: Path, target: Path, change: Callable[[bytes], bytes]) -> None:
    """The file of torch.save with another pickle. The archive itself is sound: a wrong checksum would end the test."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("kind", ["pickle", "archive", "safetensors"])
def test_mutated_files_are_read_or_refused(
    kind: str, encoder: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    suffix = ".safetensors" if kind == "safetensors" else ".pt"
    source, target, out = tmp_path / f"source{suffix}", tmp_path / f"file{suffix}", tmp_path / "out"
    if kind == "safetensors":
        safetensors.torch.save_file(encoder, source)
    else:
        torch.save({"state_dict": encoder, "epoch": 3}, source)
    ends: dict[str, int] = {}
    for number in range(MUTATED // 3):
        rng = random.Random(f"{kind} {number}")
        if kind == "pickle":
            with_pickle(source, target, lambda content, rng=rng: mutated(content, rng))
        else:
            target.write_bytes(mutated(source.read_bytes(), rng))
        for action in (inspect, partial(convert, out=out / str(number), tokenizer=None)):
            try:
                action(target)
                end = "read"
            except (UsageError, RunError) as error:
                assert str(target) in str(error) and "\n" not in str(error), (number, error)
                end = type(error).__name__
            ends[end] = ends.get(end, 0) + 1
    # The changes reach every end: refused as no file, refused as no model, and read.
    assert ends.keys() == {"read", "UsageError", "RunError"}, ends


def test_a_pickle_with_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"a": torch.zeros(1)}, tmp_path / "source.pt")
    with_pickle(tmp_path / "source.pt", tmp_path / "file.pt", lambda _: pickle.dumps(Harm(), protocol=2))
    refused(tmp_path / "file.pt", tmp_path, capsys)
    assert not (tmp_path / "harm").exists()


def test_a_full_disk_leaves_nothing(
    encoder: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    torch.save(encoder, tmp_path / "file.pt")
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert main(["weights", "convert", str(tmp_path / "file.pt"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "no space is left for" in said and str(tmp_path / "out") in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pt"]
