"""The command itself: its messages for wrong arguments, and its exit codes."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from prior_fast.cli.main import VERBS, main

CODE = "import sys, prior_fast, prior_fast.cli.main as m; m.make_parser(); print(*sys.modules)"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--no-such"], ["unknown argument '--no-such'", "prior-fast --help"]),
        (["trian"], ["invalid choice: 'trian'", "train"]),
        (["train", "--preset", "tiny", "--data", "x"], ["--out is missing"]),
        (["train", "--preset", "tinny", "--data", "x", "--out", "y"], ["no preset 'tinny'", "tiny"]),
        (["train", "--preset", "tiny", "--data", "x", "--out", "y", "batchsize=3"], ["did you mean 'batch_size'"]),
        (["train", "batch_size=0", "--data", "x", "--out", "y"], ["batch_size=0", "at least 2"]),
        (["train", "--preset", "tiny", "--data", "nowhere", "--out", "y"], ["nowhere"]),
        (["train", "--dta", "x", "--out", "y"], ["unknown argument '--dta'", "'--data'"]),
        (["phantom", "--out", "y", "studies=3"], ["unknown argument 'studies=3'"]),
        (["evaluate", "zero-shot", "--checkpoint", "nowhere", "--data", "x", "--out", "y"], ["nowhere"]),
        (["pictures", "--checkpoint", "nowhere", "--data", "x", "--out", "y"], ["nowhere"]),
        (["prepare", "mimic", "--images", "nowhere", "--out", "y"], ["nowhere"]),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    words: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("prior-fast: ")
    assert all(part in error for part in parts), error
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr("prior_fast.phantom.generate.generate_dataset", fail)
    assert main(["phantom", "--out", "y"]) == 1
    assert capsys.readouterr().err == "prior-fast: No space left on device: somewhere\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture) -> None:
    words = {"prepare": ["prepare", "mimic"], "evaluate": ["evaluate", "zero-shot"]}.get(verb, [verb])
    with pytest.raises(SystemExit) as done:
        main([*words, "--help"])
    assert done.value.code == 0
    assert "example" in capsys.readouterr().out


def test_settings_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--settings", "--preset", "tiny", "batch_size=7"]) == 0
    lines = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert "batch_size=7" in lines
    assert "model.bank.init=sentences" in lines
    assert any(line.startswith("stage_epochs=") and line.count(",") == 2 for line in lines)


def test_the_command_starts_without_heavy_imports() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformers", "triton", "matplotlib", "sklearn", "pyarrow"}
