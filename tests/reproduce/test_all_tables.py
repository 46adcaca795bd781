"""All tables and figures on made-up datasets in the layouts of the public ones, in small."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prior_fast.cli.main import main
from prior_fast.reproduce import execute, plan
from prior_fast.reproduce.steps import Step
from prior_fast.reproduce.tables import TABLES

STUDIES = {"mimic": 40, "chexpert": 60, "rsna": 90, "siim": 90}
SETTINGS = (
    *("train.stage_epochs=1,1,1", "train.batch_size=8", "train.precision=fp32", "train.model.bank.prototypes=16"),
    *("train.model.image.width=8", "train.model.image.pool_heads=2", "train.model.embed_dim=32"),
    *("train.model.text.hidden_size=32", "train.model.text.layers=1", "train.model.sentence_decoder.layers=1"),
    *("classification.max_steps=1", "classification.splits=prior-0,prior-1"),
    *("segmentation.max_steps=1", "segmentation.batch_size=4", "segmentation.decoder_channels=16,8,8,8,8"),
    *("segmentation.splits=folds-0", "detection.splits=folds-0"),
    *("detection.max_steps=1", "detection.batch_size=2", "detection.pyramid_channels=16", "detection.head_width=16"),
    *("detection.proposals=16", "zero-shot.pictures=false", "retrieval.pictures=false", "pictures.count=1"),
)
PATIENCE = 300  # seconds; only a broken program waits so long


@pytest.fixture(scope="module")
def made_up(shared_folder: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Made-up datasets in the four layouts."""

    def make(root: Path) -> None:
        for layout, studies in STUDIES.items():
            words = ["--layout", layout, "--out", str(root / layout), "--studies", str(studies), "--size", "256"]
            assert main(["phantom", *words, "--seed", "3"]) == 0

    return shared_folder("downloads", make)


def arguments(made_up: Path, out: Path, *tables: str) -> list[str]:
    data = [word for layout in STUDIES for word in ("--data", f"{layout}={made_up / layout}")]
    return ["reproduce", "--table", *tables, "--preset", "tiny", "--out", str(out), *data, *SETTINGS]


def table(out: Path, name: str) -> dict:
    return json.loads((out / "tables" / f"{name}.json").read_text())


@pytest.mark.slow
def test_every_table_is_filled(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """In this process, and with two draws of 5x200; the other test runs the commands as they are."""
    monkeypatch.setattr(plan, "DRAWS", plan.DRAWS[:2])
    run: list[str] = []

    def here(step: Step, lock: int | None) -> int:
        run.append(step.name)
        return main(step.words)

    monkeypatch.setattr(execute, "_run", here)
    out = tmp_path / "out"
    # 1 % of so few images has no positive one: those steps fail, and say so.
    assert main(arguments(made_up, out, "all")) == 1
    error = capsys.readouterr().err
    for name, each in TABLES.items():
        found = table(out, name)
        for variant, row in found["rows"].items():
            for column in each.columns:
                cell = row[column.key]
                step = str(cell["results"][0]).removeprefix(f"{out}/results/")
                # An encoder of three stages has no fourth block.
                assert cell["mean"] is not None or step in error or column.key == "blocks-4", (name, variant, column)
            if not each.columns:
                assert (Path(row["pictures"]) / "index.html").is_file()
    assert table(out, "supplement-3")["rows"]["softmax"]["classification-100"]["runs"] == 2
    assert table(out, "2")["rows"]["prior"]["accuracy"]["runs"] == 2
    assert table(out, "3")["rows"]["prior"]["rsna-100"]["runs"] == 1
    full = {name for name in run if (out / "results" / name / "metrics.json").is_file()}
    assert {f"{each}/segmentation-siim-100" for each in ("prior", "softmax", "without-bank")} <= full
    # The models differ as their names say.
    config = {each.name: json.loads((each / "config.json").read_text())["model"] for each in (out / "runs").iterdir()}
    assert config["softmax"]["attention"] == "softmax" and config["prior"]["attention"] == "sigmoid"
    for name, key in (("bank", "use_bank"), ("reconstruction", "use_reconstruction")):
        assert config["prior"][key] and not config[f"without-{name}"][key]
    # Again: only what failed is tried again.
    first, run[:] = list(run), []
    assert main(arguments(made_up, out, "1", "4")) == 1
    assert set(run) < set(first) and all(name in error for name in run)


def eventually(holds: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, "the command ended"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_a_filled_table(made_up: Path, tmp_path: Path) -> None:
    """The command and its step are killed during pre-training; the same command then ends in a filled table."""
    out, drawn = tmp_path / "out", tmp_path / "drawn"
    assert main(["prepare", "chexpert5x200", "--images", str(made_up / "chexpert"), "--out", str(drawn)]) == 0
    words = [sys.executable, "-m", "prior_fast.cli.main", *arguments(made_up, out, "2"), "train.checkpoint_every=1"]
    words += ["--list", str(drawn / "list.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    eventually(lambda: any((out / "runs" / "prior" / "checkpoints").glob("step-*")), process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "tables").exists()
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "data/mimic: finished before" in done.stdout
    row = table(out, "2")["rows"]["prior"]
    assert all(row[column.key]["mean"] is not None for column in TABLES["2"].columns)
    assert (row["accuracy"]["runs"], row["precision_at_1"]["runs"]) == (1, len(plan.DRAWS))
    assert row["accuracy"]["printed"] == "34.90"
    assert "PRIOR, printed" in (out / "tables" / "2.md").read_text()
