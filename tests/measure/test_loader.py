"""`prior-fast bench loader`: every usable source is really measured, and unusable sources are named."""

import importlib.util
import json
from pathlib import Path

import pytest

from prior_fast.cli.main import main


def run(store: Path, out: Path, *words: str) -> int:
    sizes = ["--batch", "4", "--workers", "1", "--seconds", "0.3"]
    return main(["bench", "loader", "--data", str(store), "--out", str(out), *sizes, *words])


@pytest.mark.skipif(importlib.util.find_spec("nvidia.dali") is None, reason="NVIDIA DALI is not installed")
def test_every_source_delivers(small_store: Path, tmp_path: Path) -> None:
    assert run(small_store, tmp_path, "--jpegs", str(small_store.parent / "phantom")) == 0
    measured = json.loads((tmp_path / "loader.json").read_text())
    rows = {row["source"]: row for row in measured["rows"]}
    assert len(rows) == 6 and not measured["left_out"]
    for row in rows.values():
        assert row["batches"] >= 1 and row["replaced"] == 0
        # The rate is that of whole batches over their total time.
        assert row["pairs_per_second"] == pytest.approx(4e3 / row["median_ms"], rel=0.9)
        assert 0 <= row["consumer_waits"] < 1
    assert measured["parts_ms"]["augment"] > 0 and measured["parts_ms"]["decode 16 files with Pillow"] > 0
    table = (tmp_path / "loader.md").read_text()
    assert all(name in table for name in rows)


def test_a_hungry_consumer_waits_more(small_store: Path, tmp_path: Path) -> None:
    waits = {}
    for rate in ("20", "1000000"):
        assert run(small_store, tmp_path / rate, "--consumer", rate) == 0
        rows = json.loads((tmp_path / rate / "loader.json").read_text())["rows"]
        waits[rate] = next(row["consumer_waits"] for row in rows if row["source"] == "memory, made ahead")
    assert waits["20"] < 0.5 < waits["1000000"]


def test_a_source_that_is_missing_is_named(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "nvidia.dali" else find_spec(name, *more)
    )
    assert run(small_store, tmp_path) == 0
    assert "DALI: left out: data.source=dali: NVIDIA DALI is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers 0: must be more than 0"),
        (["--batch", "1000"], "batch_size=1000 is more than"),
    ],
)
def test_wrong_words_are_named(
    words: list[str], message: str, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(small_store, tmp_path, *words) == 2
    assert message in capsys.readouterr().err
