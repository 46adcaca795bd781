"""Runs without parts of the model by the command line: resuming, what stays untrained, evaluations and pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from prior_fast.cli.main import main
from prior_fast.config import apply_overrides, preset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.build import build_model
from prior_fast.training.checkpoint import list_checkpoints
from prior_fast.training.meter import MEASURED
from tests.training.forked import Forked, wait_for_all

# The parts that a whole run leaves untrained, and the loss terms of its last stage, by setting.
UNTRAINED = {
    "use_bank": {"sentence_bank"},
    "use_local_alignment": {"predictor", "local_logit_scale"},
    "use_reconstruction": {"sentence_decoder", "image_decoder"},
}
TERMS = {
    "global_alignment", "local_image", "local_text", "attention_alignment", "prototype",
    "image_reconstruction", "prototype_generation", "prototype_kl", "report_generation",
}  # fmt: skip
MISSING = {
    "use_bank": {"prototype", "prototype_kl"},
    "use_local_alignment": {"local_image", "local_text", "attention_alignment"},
    "use_reconstruction": TERMS - {"global_alignment", "local_image", "local_text", "attention_alignment", "prototype"},
}
EACH = pytest.mark.parametrize("name", UNTRAINED)


def train(data: Path, out: Path, *words: str) -> int:
    return main(["train", "--preset", "tiny", "--data", str(data), "--out", str(out), *words])


def last_weights(out: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(list_checkpoints(out / "checkpoints")[-1] / "model.safetensors")


def log_lines(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


@pytest.fixture(scope="module")
def runs(small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`runs(name)` -> a run of all stages without that part."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "run"
            assert train(small_store, made[name], *small_settings, f"model.{name}=false") == 0
        return made[name]

    return run


@EACH
def test_the_parts_without_a_term_keep_their_starting_weights(
    name: str, runs: Callable[..., Path], small_store: Path, small_settings: list[str]
) -> None:
    """Those of the bank too, which `tiny` would start from sentences."""
    config = apply_overrides(preset("tiny"), small_settings)
    model, _ = build_model(config.model, PreparedDataset.open(small_store, "train").vocab_size, config.seed)
    first, last = model.state_dict(), last_weights(runs(name))
    assert first.keys() == last.keys()
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], last[key])}
    assert {key.split(".")[0] for key in first} - moved == UNTRAINED[name]


@EACH
def test_the_log_has_the_terms_that_are_left(name: str, runs: Callable[..., Path]) -> None:
    lines = log_lines(runs(name))
    assert {(line["kind"], line["stage"]) for line in lines} == {
        (kind, stage) for kind in ("train", "validate") for stage in (1, 2, 3)
    }
    for line in lines:
        if line["stage"] == 3:
            assert line.keys() & TERMS == TERMS - MISSING[name]
        assert not line.keys() & MISSING[name]


# At the boundary to stage 2, and inside stage 3.
@EACH
@pytest.mark.parametrize("stop", [2, 5])
def test_stopping_and_going_on_changes_nothing(
    name: str, stop: int, runs: Callable[..., Path], small_store: Path, small_settings: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train(small_store, out, *small_settings, f"model.{name}=false", "--stop-after", str(stop)) == 0
    assert train(small_store, out, "--resume", "auto", "log_every=1") == 0
    expected, got = last_weights(runs(name)), last_weights(out)
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert log_lines(out) == log_lines(runs(name))


@EACH
def test_a_resumed_run_keeps_its_parts(
    name: str, runs: Callable[..., Path], small_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(small_store, runs(name), "--resume", "auto", f"model.{name}=true") == 2
    assert f"model.{name}=false: a resumed run can't change it to true" in capsys.readouterr().err.lower()


@EACH
def test_a_run_can_be_evaluated_and_pictured(
    name: str, runs: Callable[..., Path], small_store: Path, tmp_path: Path
) -> None:
    given = ["--checkpoint", str(runs(name)), "--data", str(small_store)]
    for task in ("zero-shot", "retrieval"):
        assert main(["evaluate", task, *given, "--out", str(tmp_path / task), "device=cpu", "pictures=false"]) == 0
        report = json.loads((tmp_path / task / "metrics.json").read_text())
        assert report["protocol"]["local_weight"] == (name != "use_local_alignment")
        assert report["protocol"]["bank"].startswith("not read: model" if name == "use_bank" else "read without noise")
    assert main(["pictures", *given, "--out", str(tmp_path / "pictures"), "count=1", "device=cpu"]) == 0
    sections = json.loads((tmp_path / "pictures" / "report.json").read_text())["sections"]
    assert {key for key, section in sections.items() if f"model.{name}=false" in (section["left_out"] or "")} == {
        "use_bank": {"embedding", "prototypes", "queries"},
        "use_local_alignment": {"attention"},
        "use_reconstruction": {"reconstruction"},
    }[name]
    assert set(sections["losses"]["terms"]) == {"loss", *(TERMS - MISSING[name])}


# With data parallelism, a parameter that gets no gradient ends the run at the second step.
@pytest.mark.parametrize(
    "words",
    [
        ["model.use_local_alignment=false"],
        ["model.use_bank=false", "model.use_local_alignment=false", "model.use_reconstruction=false"],
        pytest.param(["model.use_bank=false"], marks=pytest.mark.slow),
        pytest.param(["model.use_reconstruction=false"], marks=pytest.mark.slow),
    ],
    ids=lambda words: "+".join(word.split(".")[1].removesuffix("=false") for word in words),
)
def test_two_processes_train_all_stages(
    words: list[str],
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    fork_ranks: Callable[..., list[Forked]],
) -> None:
    command = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(tmp_path / "run")]
    wait_for_all(fork_ranks(2, [*command, *small_settings, *words]))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["finished"]
