"""Completion by argcomplete's protocol: what a shell offers, and that nothing slow is loaded for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prior_fast.cli.main import VERBS, main
from tests.cli.commands import HEAVY

CODE = (
    "import os, sys\n"
    "leave = os._exit\n"
    "def told(code):\n"
    "    print(*sys.modules, flush=True)\n"
    "    leave(code)\n"
    "os._exit = told\n"
    "from prior_fast.cli.main import main\n"
    "main()\n"
)


def offered(line: str, folder: Path) -> set[str]:
    """The words that a shell offers at the end of a line; bash breaks words at "=" too."""
    asked = {
        **{"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:"},
        **{"_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "offered"), "COMP_LINE": line, "COMP_POINT": str(len(line))},
    }
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **asked}, capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(done.stdout.split()) & HEAVY, "a key press must not wait for torch"
    return set((folder / "offered").read_text().split("\n"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tr", {"train "}),
        ("help tr", {"train "}),
        ("evaluate z", {"zero-shot "}),
        ("prepare ta", {"table "}),
        ("weights con", {"convert "}),
        ("train --pre", {"--preset "}),
        ("train --preset ", {"paper", "released", "tiny"}),
        ("bench train --preset t", {"tiny "}),
        ("phantom --layout ", {"mimic", "chexpert", "rsna", "siim"}),
        ("prepare mimic --decode ", {"exact", "fast"}),
        ("train --data made-", {"made-up/"}),
        ("train --preset tiny --data x prec", {"precision="}),
        ("train precision=", {"auto", "bf16", "fp32"}),
        ("train --data x batch_size=3 precision=b", {"bf16 "}),
        ("train data.fl", {"data.flip="}),
        ("evaluate detection frozen=", {"true", "false"}),
        ("evaluate retrieval --checkpoint x by=s", {"study "}),
        ("evaluate classification percent=1", {"1", "10", "100"}),
        ("pictures dev", {"device="}),
        ("reproduce train.batch", {"train.batch_size="}),
        ("doctor batch", {""}),
        ("completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_words_are_offered(line: str, words: set[str], tmp_path: Path) -> None:
    (tmp_path / "made-up").mkdir()
    assert offered(f"prior-fast {line}", tmp_path) == words


def test_commands_and_settings_are_offered(tmp_path: Path) -> None:
    assert offered("prior-fast ", tmp_path) >= set(VERBS)
    assert offered("prior-fast train model.bank.t", tmp_path) == {
        *("model.bank.tau_start=", "model.bank.tau_end=", "model.bank.tau_decay=")
    }
    assert offered('prior-fast train --data "not closed prec', tmp_path) is not None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_for_a_shell(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert "prior-fast" in code and "_ARGCOMPLETE" in code


def test_bash_takes_the_code() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    code = f'eval "$({sys.executable} -m prior_fast.cli.main completion bash)" && complete -p prior-fast'
    done = subprocess.run([bash, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "prior-fast" in done.stdout, done.stderr


def test_without_a_shell_it_says_how(capsys: pytest.CaptureFixture) -> None:
    assert main(["completion"]) == 0
    shown = capsys.readouterr().out
    assert 'eval "$(prior-fast completion bash)"' in shown and "prior-fast completion fish | source" in shown


def test_other_commands_do_not_load_argcomplete() -> None:
    code = (
        "import sys; from prior_fast.cli.main import main; main(['train', '--settings', 'seed']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "argcomplete" not in done.stdout.split()
