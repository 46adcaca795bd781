"""What needs no model is answered without loading one: help, lists, and the refusal of what is not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from prior_fast.cli.inputs import look_at_checkpoint, look_at_dataset
from prior_fast.errors import UsageError
from tests.cli.commands import HEAVY, parsers, run_alone

# Layouts of files import numpy and pyarrow.
WITH_NUMPY = {("reproduce",)}
ALL = [words for words, _ in parsers()]


def all_of(folder: Path, commands: list[tuple[str, ...]]) -> set[str]:
    """The modules that the help of each of the commands loads, one after the other in one process."""
    code = (
        "import contextlib, io, sys\n"
        "from prior_fast.cli.main import main\n"
        f"for words in {commands!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([*words, '--help'])\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_no_help_loads_a_model(tmp_path: Path) -> None:
    light = [words for words in ALL if words not in WITH_NUMPY and not (words[:1] == ("prepare",) and words[1:])]
    assert not all_of(tmp_path, light) & {*HEAVY, "numpy", "pyarrow", "PIL"}
    assert not all_of(tmp_path, [words for words in ALL if words not in light]) & HEAVY


@pytest.mark.parametrize(
    "line",
    [
        "",
        "trian",
        "train --settings",
        "train batch_size 4",
        "train --data x --out y batchsize=3",
        "train --preset tinny --data x --out y",
        "evaluate detection --settings",
        "evaluate detection --checkpoint a --data b --out c percent=7",
        "bench train --preset tinny",
        "completion bash",
    ],
)
def test_words_alone_load_neither_torch_nor_numpy(line: str, tmp_path: Path) -> None:
    _, _, err, loaded = run_alone(tmp_path, *line.split())
    assert not loaded & {*HEAVY, "numpy", "pyarrow"} and err.count("\n") <= 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --preset tiny --data no --out y", "no is no prepared dataset: it has no dataset.json"),
        ("train --preset tiny --data empty --out y", "empty is no prepared dataset: it has no dataset.json"),
        ("train --preset tiny --data no --out y --resume no", "no checkpoint at no"),
        ("train --preset tiny --data no --out old", "old already holds a run: add --resume auto"),
        ("evaluate zero-shot --checkpoint no --data made --out y", "no checkpoint at no"),
        ("evaluate zero-shot --checkpoint empty --data made --out y", "no checkpoint in empty"),
        ("evaluate retrieval --checkpoint old --data no --out y", "no is no prepared dataset"),
        ("evaluate retrieval --checkpoint old --data made --out y reports=no", "no is no prepared dataset"),
        ("evaluate bank --checkpoint old --data empty --out y", "empty is no prepared dataset"),
        ("evaluate classification --checkpoint no --data made --out y", "no checkpoint at no"),
        ("evaluate detection --checkpoint file --data no --out y", "no is no prepared dataset"),
        ("pictures --checkpoint no --data made --out y", "no checkpoint at no"),
        ("pictures --checkpoint old --data no --out y", "no is no prepared dataset"),
        ("pictures --checkpoint old --data made --out y cuont=2", "did you mean 'count'?"),
        ("reproduce --table 7 --plan", "--table 7: there is no such table"),
        ("reproduce --table 1 --data rsna=no", "there is no such folder"),
        ("reproduce --table 1 --checkpoint no --plan", "no checkpoint at no"),
        ("reproduce --table 1 --list no --plan", "--list no: there is no such file"),
        ("reproduce --table 1 --plan classification.percnt=1", "did you mean 'percent'?"),
        ("prepare mimic --images no --out y", "no: there is no such folder"),
        ("prepare table --table no --images empty --out y", "no: there is no such file"),
        ("prepare rsna --images no --out y", "--images no: there is no such folder"),
        ("prepare merge --out y", "there are no shards"),
        ("weights inspect no", "PATH=no: there is no such file"),
        ("weights convert no --out y", "PATH=no: there is no such file"),
        ("weights export no --out y", "no checkpoint at no"),
        ("bench train --data no", "no is no prepared dataset"),
        ("bench loader --data no", "no is no prepared dataset"),
        ("bench ceiling --data no --epochs 1 --out y", "no is no prepared dataset"),
        ("bench predict --chip h200 --beside no", "--beside no: there is no such file"),
        ("bench picture --train no --loader no --kernels no --out y", "--train no: there is no such file"),
        ("bench page no.md", "page no.md: there is no such file"),
        ("bench compare no no", "no"),
        ("bench demo no", "no/zero-shot/metrics.json is missing"),
    ],
)
def test_what_is_not_there_is_refused_before_torch_is_loaded(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    for name in ("made/dataset.json", "old/checkpoints/step-00000003/checkpoint.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")
    code, out, err, loaded = run_alone(tmp_path, *line.split())
    assert code == 2 and message in err and err.count("\n") == 1 and not out
    assert not loaded & HEAVY
    assert not (tmp_path / "y").exists()


def test_the_first_look_says_what_the_later_check_says(tmp_path: Path) -> None:
    from prior_fast.data.dataset_folder import read_info
    from prior_fast.training.checkpoint import open_checkpoint

    (tmp_path / "empty").mkdir()
    for look, check, folders in (
        (look_at_dataset, read_info, ("no", "empty")),
        (look_at_checkpoint, open_checkpoint, ("no", "empty")),
    ):
        for name in folders:
            with pytest.raises(UsageError) as first:
                look(tmp_path / name)
            with pytest.raises(UsageError) as later:
                check(tmp_path / name)
            assert str(first.value) == str(later.value)


def test_the_first_look_lets_pass_what_the_later_check_takes(tmp_path: Path) -> None:
    for name in ("run/checkpoints/step-00000003", "alone"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "checkpoint.json").write_text("{}")
    (tmp_path / "file.pt").write_bytes(b"x")
    for name in ("run", "run/checkpoints", "run/checkpoints/step-00000003", "alone"):
        look_at_checkpoint(tmp_path / name)
    look_at_checkpoint(tmp_path / "file.pt", file=True)
    look_at_checkpoint(None)
    look_at_dataset(None)
    with pytest.raises(UsageError, match="no checkpoint at"):
        look_at_checkpoint(tmp_path / "file.pt")
