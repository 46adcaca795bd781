"""Damage to the files of a fine-tuning, and to a file of weights, ends in one line and never in wrong results."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from prior_fast.downstream.claim import claim
from prior_fast.downstream.pretrained import open_pretrained
from prior_fast.downstream.results import read_result
from prior_fast.downstream.state import Nonfinite, Standing, copy_weights, load_state, save_state
from prior_fast.errors import RunError, UsageError
from prior_fast.model.image_encoder import ResNet
from tests.data.flips import flipped, places

Evaluate = Callable[..., int]
LINE = {"epoch": 1, "step": 4, "loss": 0.5, "validate": {"auroc": 0.75, "loss": 0.5}, "best": True}


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    return model, optimizer


def standing() -> Standing:
    return Standing(step=4, losses=[0.25], history=[LINE], best=0.75, seconds=1.5)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    model, optimizer = network()
    save_state(tmp_path / "state", standing(), model, copy_weights(model), optimizer)
    return tmp_path / "state"


def test_each_flipped_bit_of_a_state_is_found(state: Path) -> None:
    for path in sorted(state.iterdir()):
        for position, bit in places(path, 120 if path.name == "state.json" else 25):
            with flipped(path, position, bit):
                # Every file is compared. A bit in the name of the entry `seal` makes it an unknown entry.
                with pytest.raises(
                    UsageError, match=r"can't be read .*: remove it to train this split again"
                ) as caught:
                    load_state(state, *network())
                assert str(state) in str(caught.value) and "\n" not in str(caught.value)
    assert load_state(state, *network())[0] == standing()


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "best.safetensors", "optimizer.safetensors"])
def test_cut_and_missing_files_of_a_state(state: Path, name: str) -> None:
    content = (state / name).read_bytes()
    for damaged in (content[:-2], content[: len(content) // 2], b""):
        (state / name).write_bytes(damaged)
        with pytest.raises(UsageError, match="remove it to train this split again"):
            load_state(state, *network())
    (state / name).unlink()
    with pytest.raises(UsageError, match="remove it to train this split again"):
        load_state(state, *network())


def test_a_state_of_an_earlier_version_has_no_digests(state: Path) -> None:
    saved = json.loads((state / "state.json").read_text())
    old = {name: value for name, value in saved.items() if name not in ("files", "seal")}
    (state / "state.json").write_text(json.dumps(old))
    assert load_state(state, *network())[0] == standing()
    for name in old:
        (state / "state.json").write_text(json.dumps({key: value for key, value in old.items() if key != name}))
        with pytest.raises(UsageError, match=f"has no '{name}'"):
            load_state(state, *network())


def test_a_state_that_is_not_finite_is_not_saved(state: Path) -> None:
    model, optimizer = network()
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    for value in (float("nan"), float("inf")):
        for damage in (model[2].weight.data, optimizer.state[model[0].weight]["exp_avg"]):
            kept = damage.clone()
            damage[0, 0] = value
            with pytest.raises(Nonfinite, match=r"2\.weight|exp_avg\.0\.weight"):
                save_state(state, standing(), model, {}, optimizer)
            damage.copy_(kept)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    assert [path.name for path in state.parent.iterdir()] == ["state"]


@pytest.fixture(scope="module")
def finished(evaluate: Evaluate, squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    assert evaluate("classification", squares, out, *WORDS) == 0
    return out


WORDS = ["epochs=1", "batch_size=12", "splits=prior-0"]


def test_each_flipped_bit_of_a_result_is_found(finished: Path) -> None:
    folder = finished / "prior-0"
    whole = read_result(folder, "auroc")
    for position, bit in places(folder / "result.json", 200):
        with flipped(folder / "result.json", position, bit):
            try:
                found = read_result(folder, "auroc")
            except UsageError as error:
                assert f"remove {folder} to train this split again" in str(error)
            else:
                assert {name: found[name] for name in whole} == whole, (position, bit)


def test_each_flipped_bit_of_the_settings_is_found(finished: Path) -> None:
    settings = json.loads((finished / "settings.json").read_text())
    settings.pop("seal")
    for position, bit in places(finished / "settings.json", 200):
        with flipped(finished / "settings.json", position, bit):
            try:
                claim(finished, settings)
            except UsageError as error:
                assert "name another --out" in str(error)
            else:
                found = json.loads((finished / "settings.json").read_bytes())
                assert {name: found.get(name) for name in settings} == settings, (position, bit)


@pytest.mark.parametrize("name", ["result.json", "settings.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"a": 1}', "[" * 100_000, "\udcff"])
def test_torn_files_are_one_line(
    name: str,
    content: str,
    evaluate: Evaluate,
    squares: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    path = out / name if name == "settings.json" else out / "prior-0" / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert evaluate("classification", squares, out, *WORDS) == 2
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1


def test_a_lost_log_changes_nothing(evaluate: Evaluate, squares: Path, finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "prior-0" / "log.jsonl").write_text("{")
    assert evaluate("classification", squares, out, *WORDS) == 0
    assert (out / "curves.png").read_bytes() == (finished / "curves.png").read_bytes()


def test_a_state_under_its_hidden_name_is_put_back(evaluate: Evaluate, squares: Path, tmp_path: Path) -> None:
    """What a kill between the two renames of a replacement leaves."""
    folder = tmp_path / "out" / "prior-0"
    assert evaluate("classification", squares, tmp_path / "out", *WORDS, "max_steps=1") == 0
    result = json.loads((folder / "result.json").read_text())
    hidden = folder / ".state.4711.old"
    hidden.mkdir()
    (hidden / "state.json").write_text("{")
    (folder / ".state.4712.partial").mkdir()
    (folder / "result.json").unlink()
    # The hidden folder was taken as the state: it is damaged, so the run says so instead of starting again.
    assert evaluate("classification", squares, tmp_path / "out", *WORDS, "max_steps=1") == 2
    assert (folder / "state" / "state.json").is_file() and not list(folder.glob(".state.*"))
    shutil.rmtree(folder / "state")
    assert evaluate("classification", squares, tmp_path / "out", *WORDS, "max_steps=1") == 0
    assert json.loads((folder / "result.json").read_text())["test"] == result["test"]


@pytest.fixture(scope="module")
def encoder_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    state = ResNet((1, 1, 1, 1), 8).state_dict()
    torch.save(state, folder / "encoder.pt")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "encoder.safetensors")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["encoder.pt", "old.pth", "encoder.safetensors"])
def test_a_damaged_file_of_weights_ends_in_one_line(name: str, encoder_files: dict[str, Path], tmp_path: Path) -> None:
    whole = encoder_files[name].read_bytes()
    rng, refused = np.random.default_rng(7), 0
    path = tmp_path / name
    for trial in range(150):
        damaged = bytearray(whole)
        kind = trial % 3
        # Most of the structure is at the beginning and, of an archive, at the end.
        place = int(rng.integers(4000)) if trial % 2 else len(whole) - 1 - int(rng.integers(9000))
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            damaged[place : place + 8] = rng.bytes(8)
        else:
            del damaged[int(rng.integers(len(damaged))) :]
        path.write_bytes(damaged)
        try:
            open_pretrained(path)
        except (UsageError, RunError) as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 75


class Odd:
    """Pickled, it names a function that must not be called."""

    def __reduce__(self) -> tuple:
        return os.system, ("false",)


def odd_files(folder: Path) -> dict[str, Path]:
    state = ResNet((1, 1, 1, 1), 8).state_dict()
    huge = torch.zeros(1).expand(10**12)
    block = {"layer1.999999999.conv1.weight": torch.zeros(1)}
    contents = {
        "expanded.pt": {**state, "conv1.weight": huge.view(10**12, 1, 1, 1)},
        "wide.pt": {**state, "conv1.weight": torch.zeros(1, 1, 1, 1).expand(10**5, 1, 7, 7)},
        "deep.pt": {**state, **block},
        "flat.pt": {**state, "conv1.weight": torch.zeros(8)},
        "scalar.pt": {**state, "conv1.weight": torch.zeros(())},
        "sparse.pt": {**state, "conv1.weight": torch.zeros(8, 1, 7, 7).to_sparse()},
        "meta.pt": {**state, "conv1.weight": torch.zeros(8, 1, 7, 7, device="meta")},
        "whole-numbers.pt": {name: tensor.long() for name, tensor in state.items()},
        "nan.pt": {**state, "layer1.0.conv1.weight": state["layer1.0.conv1.weight"] * float("nan")},
        "variance.pt": {**state, "bn1.running_var": -torch.ones(8)},
        "function.pt": {"conv1.weight": Odd()},
        "list.pt": [1, 2],
        "numbers.pt": {1: torch.zeros(1)},
    }
    for name, content in contents.items():
        torch.save(content, folder / name)
    (folder / "empty.pt").touch()
    (folder / "empty.safetensors").touch()
    (folder / "text.pth").write_text("no weights")
    (folder / "folder.pt").mkdir()
    os.mkfifo(folder / "fifo.pt")
    return {path.name: path for path in folder.iterdir()}


def test_odd_files_of_weights_are_one_line_each(tmp_path: Path) -> None:
    for name, path in odd_files(tmp_path).items():
        with pytest.raises(UsageError) as caught:
            open_pretrained(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), name
    with pytest.raises(UsageError, match=r"layer1\.0\.conv1\.weight"):
        open_pretrained(tmp_path / "nan.pt")
    with pytest.raises(UsageError, match=r"bn1\.running_var has negative values"):
        open_pretrained(tmp_path / "variance.pt")


def test_weights_of_a_checkpoint_that_are_not_finite(
    checkpoint: Path, evaluate: Evaluate, squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prior_fast.cli.main import main

    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    tensors = safetensors.torch.load_file(copy / "model.safetensors")
    name = "image_encoder.encoder.layer1.0.conv1.weight"
    tensors[name][0] = float("nan")
    safetensors.torch.save_file(tensors, copy / "model.safetensors")
    info = json.loads((copy / "checkpoint.json").read_text())
    (copy / "checkpoint.json").write_text(
        json.dumps({key: value for key, value in info.items() if key not in ("files", "seal")})
    )
    words = ["--checkpoint", str(copy), "--data", str(squares), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "segmentation", *words, "device=cpu"]) == 2
    error = capsys.readouterr().err
    assert "encoder.layer1.0.conv1.weight" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_stops_after_the_step(checkpoint: Path, squares: Path, tmp_path: Path) -> None:
    """The first Ctrl-C saves the state; the exit code is 130."""
    code = (
        "import signal, sys; from prior_fast.cli.main import main; "
        "from prior_fast.downstream.tasks.classification import Classification as C; step = C.loss\n"
        "def loss(self, *args):\n    signal.raise_signal(signal.SIGINT); C.loss = step; return step(self, *args)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background programs ignore it
        "C.loss = loss; sys.exit(main(sys.argv[1:]))"
    )
    paths = ["--checkpoint", str(checkpoint), "--data", str(squares), "--out", str(tmp_path / "out")]
    words = ["evaluate", "classification", *paths, *WORDS, "device=cpu"]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300)
    assert found.returncode == 128 + signal.SIGINT, found.stderr
    assert "Traceback" not in found.stderr and "stopped by Ctrl-C (exit code 130)" in found.stdout
    assert json.loads((tmp_path / "out/prior-0/state/state.json").read_text())["step"] == 1
