"""`prior-fast bench predict`: its table, its file, and wrong use."""

import json
from pathlib import Path

import pytest

from prior_fast.cli.main import main
from prior_fast.measure.page.fill import fill
from tests.small_model import SMALL_MODEL

WORDS = ["bench", "predict", "--preset", "tiny", "--batch", "6", "--tokens", "40"]
SETTINGS = [*SMALL_MODEL, "data.max_tokens=64", "precision=fp32"]


def test_a_gpu_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*WORDS, "--chip", "h200,a100-40", "--convolutions", "--out", str(tmp_path), *SETTINGS]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "together" in shown and "transposed convolutions" in shown
    report = json.loads((tmp_path / "predict.json").read_text())
    assert report["kind"] == "predict" and len(report["parts"]) == 8
    assert all(row["measured"] is None for row in report["parts"])
    assert all(row["milliseconds"]["a100-40"] >= row["milliseconds"]["h200"] for row in report["parts"])
    assert len(report["convolutions"]) % 3 == 0 and report["convolutions"]
    # The table of a page has the same figures.
    text = "<!-- table predict predict.json -->\n<!-- end of table -->\n"
    table = fill(text, tmp_path, "page")
    assert "| part | TFLOP | GB | launches | h200, ms | a100-40, ms |" in table and "measured" not in table


def test_this_cpu_measured_and_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*WORDS, "--chip", "cpu", "--stage", "1", *SETTINGS]
    assert main([*words, "--measure", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "predict.json").read_text())
    measured = {row["part"]: row["measured"] for row in report["parts"]}
    for part in ("convolutions", "batch norm, ReLU, pooling", "matrix products", "clipping and Adam"):
        assert measured[part] > 0
    assert report["machine"]["threads"] >= 1
    assert main([*words, "--beside", str(tmp_path / "predict.json"), "--out", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again/predict.json").read_text())
    assert {row["part"]: row["measured"] for row in again["parts"]} == measured


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chip", "h300"], "--chip h300: did you mean 'h"),
        (["--chip", "tpu-v5"], "--chip tpu-v5: choose from a100-40, a100-80, h100, h200, cpu"),
        (["--chip", "cpu,h200"], "ask for the CPU alone"),
        (["--chip", "h200", "--beside", "nothing.json"], "--beside nothing.json"),
        (["--chip", "cpu", "--measure", "--beside", "nothing.json"], "choose one"),
        (["--chip", "h200", "--batch", "1"], "--batch 1: must be at least 2"),
        (["--chip", "h200", "--tokens", "5"], "must be"),
        (["--chip", "h200", "compile=off"], "compile=off"),
    ],
)
def test_wrong_use(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main([*WORDS, *words, "data.max_tokens=64"]) == 2
    assert message in capsys.readouterr().err
