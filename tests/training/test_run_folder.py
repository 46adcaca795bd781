"""A run's folder: settings and data from the first second, one process, sound checkpoints, a log without torn lines."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from prior_fast.cli.main import main
from prior_fast.errors import UsageError
from prior_fast.files.claim import claim_folder
from prior_fast.training import run as training_run
from prior_fast.training.checkpoint import list_checkpoints, newest_sound, open_checkpoint
from tests.training.forked import Forked, main_until_stopped

Started = Callable[..., Path]


def train(data: Path, out: Path, *words: str) -> int:
    return main(["train", "--data", str(data), "--out", str(out), *words])


def last_weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(list_checkpoints(out / "checkpoints")[-1] / "model.safetensors")


@pytest.fixture(scope="module")
def finished(small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    assert train(small_store, out, "--preset", "tiny", *small_settings, "checkpoint_every=1", "keep_checkpoints=9") == 0
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run with a checkpoint after each step."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def unsaved(small_store: Path, small_settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was killed before its first checkpoint."""

    def killed(*arguments: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Run, "_save", killed)
        with pytest.raises(SystemExit):
            train(small_store, tmp_path / "unsaved", "--preset", "tiny", *small_settings)
    assert not list_checkpoints(tmp_path / "unsaved" / "checkpoints")
    return tmp_path / "unsaved"


def test_a_run_without_a_checkpoint_keeps_its_settings(
    unsaved: Path, finished: Path, small_store: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(small_store, unsaved, "--resume", "auto") == 0
    assert "has no checkpoint yet: the run starts again, with its settings" in capsys.readouterr().err
    config = json.loads((unsaved / "config.json").read_text())
    assert config["preset"] == "tiny" and config["batch_size"] == 8
    expected, got = last_weights(finished), last_weights(unsaved)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch_size=4"], "was made with batch_size=8: a resumed run can't change it to 4"),
        (["--preset", "paper"], "was made with --preset tiny, not paper"),
        # It goes with the batch size of the preset that is not asked for, and not with the run's.
        (["processes=16"], "processes=16: must be a divisor of batch_size=8"),
        (["learning_rate=-1,1,1"], "learning_rate=(-1.0, 1.0, 1.0): must be more than 0 each"),
    ],
)
def test_a_run_without_a_checkpoint_can_not_become_another(
    words: list[str], message: str, unsaved: Path, small_store: Path, capsys: pytest.CaptureFixture
) -> None:
    before = (unsaved / "config.json").read_bytes()
    assert train(small_store, unsaved, "--resume", "auto", *words) == 2
    assert message in capsys.readouterr().err
    assert (unsaved / "config.json").read_bytes() == before


def other_data(store: Path, folder: Path) -> Path:
    """A dataset with the tokenizer of `store` and other images."""
    shutil.copytree(store, folder)
    info = json.loads((folder / "dataset.json").read_text())
    info.pop("seal", None)
    images = np.load(folder / "images.npy")
    np.save(folder / "images.npy", 255 - images)
    from prior_fast.files import sha256

    info["files"]["images.npy"]["sha256"] = sha256(folder / "images.npy")
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def test_other_data_are_refused_with_a_checkpoint_and_without(
    run: Path, unsaved: Path, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = other_data(small_store, tmp_path / "other")
    for out in (run, unsaved):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert train(other, out, "--resume", "auto") == 2
        said = capsys.readouterr().err
        assert f"was trained with other data than {other}" in said and said.count("\n") <= 2
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert train(other, run, "--resume", str(list_checkpoints(run / "checkpoints")[0])) == 2


def test_a_refused_run_leaves_no_folder(small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(small_store, tmp_path / "run", "--preset", "tiny", "batch_size=1000") == 2
    assert train(tmp_path / "nothing", tmp_path / "run", "--preset", "tiny") == 2
    damaged = Path(shutil.copytree(small_store, tmp_path / "damaged"))
    tokens = bytearray((damaged / "tokens.npy").read_bytes())
    tokens[-1] ^= 1
    (damaged / "tokens.npy").write_bytes(tokens)
    capsys.readouterr()
    assert train(damaged, tmp_path / "run", "--preset", "tiny", "batch_size=8") == 2
    assert "tokens.npy" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_else_is_refused(
    small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = Path(shutil.copytree(small_store, tmp_path / "store"))
    before = sorted(path.name for path in store.iterdir())
    assert train(small_store, store, "--preset", "tiny", *small_settings) == 2
    assert "holds a prepared dataset: give another folder" in capsys.readouterr().err
    assert sorted(path.name for path in store.iterdir()) == before


def test_a_second_training_in_the_folder_is_refused(
    finished: Path, small_store: Path, small_settings: list[str], tmp_path: Path, fork: Callable[..., Forked]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(out), *small_settings]
    with claim_folder(out, "run"):
        second = fork(words)
        assert second.wait() == 1
        assert f"is in use by process {os.getpid()} on " in second.stderr and "Traceback" not in second.stderr
        assert sorted(path.name for path in out.iterdir()) == [".lock", "kind.json"]
    third = fork(words)
    assert third.wait() == 0, third.stderr
    expected, got = last_weights(finished), last_weights(out)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "checkpoint.json", "tokenizer"])
def test_resume_falls_back_to_the_newest_sound_checkpoint(
    name: str, run: Path, finished: Path, small_store: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture
) -> None:
    newest, before = list_checkpoints(run / "checkpoints")[-1], list_checkpoints(run / "checkpoints")[-2]
    path = newest / name if name != "tokenizer" else newest / "tokenizer" / "tokenizer.json"
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    assert train(small_store, run, "--resume", "auto") == 0
    said = capsys.readouterr().err
    assert path.name in said and f"going on from {before}" in said
    expected, got = last_weights(finished), last_weights(run)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_flipped_bit_in_any_file_of_a_checkpoint_is_noticed(run: Path, rng: np.random.Generator) -> None:
    folder = list_checkpoints(run / "checkpoints")[-1]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) >= 4
    for path in files:
        whole = path.read_bytes()
        for position in rng.integers(len(whole), size=5):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                checkpoint = open_checkpoint(folder)
                checkpoint.verify()
            except UsageError as error:
                assert path.name in str(error)
            else:
                # White space of checkpoint.json, or a letter in the names of seal and files: nothing that is read.
                assert path.name == "checkpoint.json" and not whole[position : position + 1].strip()
        path.write_bytes(whole)


def test_a_run_that_goes_back_drops_what_came_later(run: Path, finished: Path, small_store: Path) -> None:
    """Else the newest by its number would be one of the steps that are taken again."""
    second = list_checkpoints(run / "checkpoints")[1]
    assert train(small_store, run, "--resume", str(second), "checkpoint_every=0", "--stop-after", "3") == 0
    names = [path.name for path in list_checkpoints(run / "checkpoints")]
    assert names == ["step-00000001", "step-00000002", "step-00000003"]
    assert train(small_store, run, "--resume", "auto", "keep_checkpoints=1") == 0
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-00000006"]
    expected, got = last_weights(finished), last_weights(run)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_finished_run_removes_what_a_kill_left(run: Path, small_store: Path) -> None:
    assert train(small_store, run, "--resume", "auto", "keep_checkpoints=2") == 0
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-00000005", "step-00000006"]


def test_a_run_with_no_sound_checkpoint_says_so(run: Path, small_store: Path, capsys: pytest.CaptureFixture) -> None:
    for path in list_checkpoints(run / "checkpoints"):
        (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no checkpoint of .* can be used"):
        newest_sound(run)
    assert train(small_store, run, "--resume", "auto") == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "tail", [b'{"kind": "train", "total_st', b"\x00" * 4096, b'{"kind": 1}\n', b"\xff\xfe\n", b"[]\n"]
)
def test_lines_of_the_log_that_can_not_be_read_are_dropped(
    tail: bytes, run: Path, small_store: Path, small_settings: list[str]
) -> None:
    log = run / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + tail)
    assert train(small_store, run, "--resume", "auto") == 0
    assert log.read_bytes() == whole


def test_files_of_a_checkpoint_are_readable_like_others(run: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run.rglob("*") if path.is_file()}
    wanted = modes["metrics.json"]
    assert {name: mode for name, mode in modes.items() if mode != wanted and not name.startswith("events")} == {}


def test_leftovers_of_a_killed_run_are_removed(run: Path, small_store: Path) -> None:
    (run / "checkpoints" / ".step-00000009.77.partial").mkdir()
    (run / "checkpoints" / ".step-00000001.78.partial").mkdir()
    (run / ".metrics.json.77.partial").write_text("")
    assert train(small_store, run, "--resume", "auto") == 0
    assert [path.name for path in run.rglob(".*")] == []


def test_ended_runs_keep_no_lock(run: Path, small_store: Path, small_settings: list[str], fork: Callable) -> None:
    out = run.parent / "killed"
    words = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(out), *small_settings]
    process = fork(words, main=main_until_stopped)
    while not (out / "log.jsonl").exists() or not (out / "log.jsonl").read_text():
        assert process.running(), process.stderr
    process.end()
    assert (out / ".lock").exists()
    assert train(small_store, out, "--resume", "auto") == 0
    assert not (out / ".lock").exists()
