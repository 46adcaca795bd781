"""`prior-fast pictures` from its arguments to its page and error lines."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.cli.main import main
from prior_fast.config import preset
from tests.evaluation.fake_store import write_checkpoint

ZERO_SHOT = {"zero-shot-roc.png", "zero-shot-confusion.png"}
ATTENTION = {"attention-weight.png", "attention-departure.png", "attention-reports.png"}
ALL = {
    *ZERO_SHOT,
    *ATTENTION,
    "reconstruction.png",
    "embedding.png",
    "prototype-use.png",
    "queries.png",
    "losses.png",
}


def pictures(checkpoint: Path, store: Path, out: Path, *words: str) -> int:
    return main(["pictures", "--checkpoint", str(checkpoint), "--data", str(store), "--out", str(out), *words])


def shown_files(out: Path) -> set[str]:
    """The images that the page shows; each is checked to be a valid picture."""
    page = (out / "index.html").read_text()
    files = set(re.findall(r'<img src="([^"]+)"', page))
    for name in files:
        with Image.open(out / name) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[1] >= 600 and pixels.std() > 5, name
    return files


def test_stage_3_shows_everything(
    store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert pictures(run_folder, store, out, "count=2", "device=cpu") == 0
    assert shown_files(out) == ALL == {path.name for path in out.glob("*.png")}
    page = (out / "index.html").read_text()
    assert "://" not in page and "<script" not in page and "<link" not in page
    assert 'class="absent"' not in page
    report = json.loads((out / "report.json").read_text())
    assert {name for section in report["sections"].values() for name in section["files"]} == ALL
    assert report["sections"]["prototypes"]["prototypes"] == preset("tiny").model.bank.prototypes
    assert not list(out.glob(".*"))
    assert "index.html shows them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ([], "whose prompt, &quot;&lt;finding&gt; is observed&quot;, has the greatest score"),
        (["prompts=generated", "prompts_per_class=3"], "(prompts=generated, 3 of Atelectasis)"),
    ],
)
def test_zero_shot_is_that_of_the_evaluation(
    prompts: list[str], told: str, store: Path, run_folder: Path, tmp_path: Path
) -> None:
    assert pictures(run_folder, store, tmp_path / "page", "count=1", "seed=3", *prompts) == 0
    words = ["--checkpoint", str(run_folder), "--data", str(store), "--out", str(tmp_path / "own")]
    assert main(["evaluate", "zero-shot", *words, "seed=3", *prompts]) == 0
    shown = json.loads((tmp_path / "page" / "report.json").read_text())["sections"]["zero-shot"]
    own = json.loads((tmp_path / "own" / "metrics.json").read_text())
    assert shown["images"] == own["data"]["selected"]
    assert shown["accuracy"] == pytest.approx(own["metrics"]["accuracy"]["value"])
    for name, value in own["metrics"]["auroc"].items():
        assert shown["auroc"][name] == pytest.approx(value["value"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert f"Accuracy {shown['accuracy']:.3f}, chance 0.200" in page and told in page


def test_stage_1_says_what_it_cannot_show(store: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "elsewhere", store, stage=1)
    out = tmp_path / "out"
    assert pictures(checkpoint, store, out, "count=1") == 0
    assert shown_files(out) == ZERO_SHOT | ATTENTION | {"embedding.png"}
    sections = json.loads((out / "report.json").read_text())["sections"]
    page = (out / "index.html").read_text()
    for key, reason in (
        ("reconstruction", "trained in stage 3"),
        ("embedding", "trained from stage 2 on"),
        ("prototypes", "trained from stage 2 on"),
        ("queries", "trained from stage 2 on"),
        ("losses", "no curves to show"),
    ):
        assert reason in sections[key]["left_out"] and reason in page


def test_stage_2_has_the_bank_but_no_reconstruction(store: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "elsewhere", store, stage=2)
    assert pictures(checkpoint, store, tmp_path / "out", "count=1") == 0
    assert shown_files(tmp_path / "out") == ALL - {"reconstruction.png", "losses.png"}


@pytest.mark.parametrize(
    "words, message",
    [
        (["cuont=2"], "unknown setting 'cuont': did you mean 'count'?"),
        (["count=0"], "count=0: must be 1 to 8"),
        (["seed=-1"], "seed=-1: must be 0 to"),
        (["sentences=no-such-file.txt"], "sentences=no-such-file.txt can't be read: No such file or directory"),
        (["prompts=no-such-file.json"], "prompts=no-such-file.json: can't be read (No such file or directory)"),
        (["prompts_per_class=0"], "prompts_per_class=0: must be at least 1"),
        (["--split", "validate"], "the split 'validate'"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], message: str, store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pictures(run_folder, store, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_inputs(store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for checkpoint, data in ((tmp_path / "none", store), (tmp_path / "empty", store), (run_folder, tmp_path / "empty")):
        assert pictures(checkpoint, data, tmp_path / "out") == 2
        assert capsys.readouterr().err.count("\n") == 1
