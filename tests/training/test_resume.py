"""A run that is stopped and resumed ends with the same weights as an uninterrupted one, bit for bit."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from prior_fast.cli.main import main
from prior_fast.training.checkpoint import list_checkpoints
from prior_fast.training.meter import MEASURED


def train(data: Path, out: Path, *words: str) -> int:
    return main(["train", "--preset", "tiny", "--data", str(data), "--out", str(out), *words])


def last_weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(list_checkpoints(out / "checkpoints")[-1] / "model.safetensors")


def log_lines(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for line in lines:
        for name in MEASURED:
            line.pop(name, None)
    return lines


@pytest.fixture(scope="module")
def unbroken(small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert train(small_store, out, *small_settings) == 0
    return out


# 1: inside an epoch of stage 1; 2: at the boundary to stage 2; 5: inside stage 3.
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_stopping_and_going_on_changes_nothing(
    stop: int, unbroken: Path, small_store: Path, small_settings: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train(small_store, out, *small_settings, "--stop-after", str(stop)) == 0
    assert json.loads((out / "metrics.json").read_text())["total_steps"] == stop
    assert not json.loads((out / "metrics.json").read_text())["finished"]
    assert train(small_store, out, "--resume", "auto", "log_every=1") == 0
    assert json.loads((out / "metrics.json").read_text())["finished"]
    expected, got = last_weights(unbroken), last_weights(out)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert log_lines(out) == log_lines(unbroken)


def test_training_changes_the_weights_of_each_stage_only(unbroken: Path) -> None:
    first, *_, last = [
        safetensors.torch.load_file(path / "model.safetensors") for path in list_checkpoints(unbroken / "checkpoints")
    ]
    # The first kept checkpoint is the end of stage 1: the decoders still have their random weights.
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}
    assert {"sentence_bank", "sentence_decoder", "image_decoder", "image_encoder", "text_encoder"} <= moved


def test_a_finished_run_has_nothing_left_to_do(unbroken: Path, small_store: Path) -> None:
    before, facts = last_weights(unbroken), (unbroken / "metrics.json").read_text(encoding="utf-8")
    assert train(small_store, unbroken, "--resume", "auto") == 0
    assert (unbroken / "metrics.json").read_text(encoding="utf-8") == facts  # the speed of the run stays
    # A run that was killed after its last checkpoint has what an earlier stop wrote, or nothing readable.
    for left in (facts.replace('"finished": true', '"finished": false'), "{"):
        (unbroken / "metrics.json").write_text(left, encoding="utf-8")
        assert train(small_store, unbroken, "--resume", "auto") == 0
        assert json.loads((unbroken / "metrics.json").read_text(encoding="utf-8"))["finished"] is True
    assert all(torch.equal(before[name], tensor) for name, tensor in last_weights(unbroken).items())


def test_an_existing_run_is_not_overwritten(unbroken: Path, small_store: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(small_store, unbroken) == 2
    assert "--resume auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "paper", "--resume", "auto"], "was made with --preset tiny, not paper"),
        (["--resume", "auto", "batch_size=4"], "batch_size=8: a resumed run can't change it to 4"),
        (["--resume", "nowhere"], "no checkpoint at nowhere"),
    ],
)
def test_a_resumed_run_keeps_its_settings(
    words: list[str], message: str, unbroken: Path, small_store: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "--data", str(small_store), "--out", str(unbroken), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "checkpoint.json"])
def test_a_damaged_checkpoint_is_named(
    name: str, small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    assert train(small_store, out, *small_settings, "--stop-after", "1") == 0
    path = list_checkpoints(out / "checkpoints")[-1] / name
    path.write_bytes(path.read_bytes()[:100])
    assert train(small_store, out, "--resume", "auto") == 2
    assert name in capsys.readouterr().err


def test_an_optimizer_of_other_parameters_is_refused(
    small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    assert train(small_store, out, *small_settings, "--stop-after", "1") == 0
    path = list_checkpoints(out / "checkpoints")[-1] / "optimizer.safetensors"
    state = safetensors.torch.load_file(path)
    name = "exp_avg.local_cross_attention.image.weight"
    state["exp_avg.local_cross_attention.query1.weight"] = state.pop(name)[:1].clone()
    safetensors.torch.save_file(state, path)
    # As a version that recorded no digests.
    info = json.loads((path.parent / "checkpoint.json").read_text())
    del info["files"], info["seal"]
    (path.parent / "checkpoint.json").write_text(json.dumps(info))
    assert train(small_store, out, "--resume", "auto") == 2
    said = capsys.readouterr().err
    assert "a state of local_cross_attention.query1.weight" in said and "start a new run" in said
