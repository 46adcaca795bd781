"""The harness of the pages finds what it is for: each planted fault fails."""

from pathlib import Path

import pytest

from tests.pages.blocks import Block, page
from tests.pages.known import Unknown, check_code, check_command, is_whole
from tests.pages.rules import not_run, shrink
from tests.pages.shell import commands
from tests.pages.values import run_checked

PAGE = """# First

`prior-fast doctor` and a list:

1. Item

    ```sh
    make test
    ```

## Second

    indented

| a | b |
| --- | --- |
| `prior-fast
build` | ``x`` |

```python
print()
```

~~~
bare
~~~
"""


def test_blocks_with_place_language_and_heading(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    found = page("page.md", tmp_path)
    assert [(block.line, block.language, block.text, block.heading) for block in found.blocks()] == [
        (8, "sh", "make test\n", "First"),
        (13, "indented", "indented\n", "Second"),
        (21, "python", "print()\n", "Second"),
        (25, "", "bare\n", "Second"),
    ]
    assert next((code.line, code.text) for code in found.codes()) == (3, "prior-fast doctor")
    assert found.section("Second").startswith("\n    indented") and "Second" in found.section("First")


def called(text: str, folder: Path) -> list[str]:
    return [str(command) for command in commands(Block("page.md", 1, "sh", text), folder)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a b \\\n  c  # comment\n", ["a b c"]),
        (
            'for x in 1 2; do\n    prior-fast train --out "$x"\ndone',
            ["prior-fast train --out 1", "prior-fast train --out 2"],
        ),
        ("A=1 timeout 40 prior-fast doctor | tail -n 1", ["prior-fast doctor", "tail -n 1"]),
        ("srun --k=1 bash -c 'export A=1\n exec prior-fast doctor'", ["prior-fast doctor"]),
        ("(cd OLD && python x.py) && bash run.sh", ["python x.py", "bash run.sh"]),
        ("torchrun -m x &\njob=$!\nwait $job\necho done", ["torchrun -m x"]),
        ("#SBATCH --x\nsource .venv/bin/activate", ["source .venv/bin/activate"]),
    ],
)
def test_commands_are_those_that_bash_calls(text: str, found: list[str], tmp_path: Path) -> None:
    assert sorted(called(text, tmp_path)) == sorted(found)


@pytest.mark.parametrize("text", ["for x in 1 2; do a", "prior-fast doctor > nowhere/x", "a 'b"])
def test_what_bash_refuses_is_found(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1: "):
        called(text, tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "prior-fast train --preset tiny --data a --out b batch_size=3",
        "prior-fast --version",
        "prior-fast evaluate zero-shot --checkpoint a --data b --out c classes=A,B",
        "prior-fast bench memory --at 9 precision=fp32",
        "prior-fast reproduce --table 1 --data rsna=x classification.epochs=3",
        "python -m prior_fast.cli.main doctor",
        "python -m prior_fast.bench.demo.seeds --out x --seeds 1",
        "torchrun --standalone --nproc-per-node 8 -m prior_fast.cli.main train --data a --out b",
        "make test VENV=x",
        "pip install -e .[dev] --constraint locks/lock.txt",
        "python -m pytest -k word tests/cli/test_main.py::test_settings_are_listed",
        "bash bench/gpu/all.sh OUT",
    ],
)
def test_commands_that_exist(line: str) -> None:
    check_command(line.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prior-fast trian", "invalid choice"),
        ("prior-fast train --dta x", "unknown argument '--dta'"),
        ("prior-fast train --preset tinny", "no preset 'tinny'"),
        ("prior-fast train --data a --out b batchsize=3", "batch_size"),
        ("prior-fast train --data a --out b batch_size=x", "whole number"),
        ("prior-fast evaluate zero-shot --checkpoint a --data b", "--out"),
        ("prior-fast evaluate zero-shot --checkpoint a --data b --out c percent=1", "percent"),
        ("prior-fast evaluate bank --checkpoint a --data b --out c percent=1", "percent"),
        ("prior-fast evaluate classification --checkpoint a --data b --out c percnt=1", "percent"),
        ("prior-fast pictures --checkpoint a --data b --out c cuont=1", "count"),
        ("prior-fast bench memory precison=fp32", "precision"),
        ("prior-fast bench memory --preset tinny", "no preset"),
        ("prior-fast doctor a=b", "unknown argument"),
        ("prior-fast reproduce --table 9", "9"),
        ("prior-fast reproduce --table 1 --data rsma=x", "rsma"),
        ("prior-fast reproduce --table 1 --out x train.batchsize=3", "batch_size"),
        ("python -m prior_fast.cli.main trian", "invalid choice"),
        ("python -m prior_fast.bench.demo.sedes --out x", "sedes"),
        ("python -m prior_fast.bench.demo.seeds --uot x", "--uot"),
        ("python nowhere.py", "there is no nowhere.py"),
        ("python bench/gpu/steps.py --uot x", "no option --uot"),
        ("jupyter lab examples/none.ipynb", "examples/none.ipynb"),
        ("torchrun --nproc-per-node 8 -m prior_fast.cli.main trian", "invalid choice"),
        ("torchrun --nproc-per-nodes 8 -m prior_fast.cli.main doctor", "torchrun"),
        ("torchrun train.py", "runs no module"),
        ("make tset", "tset"),
        ("pip install .[devel]", "devel"),
        ("pip install . --constraint locks/none.txt", "locks/none.txt"),
        ("pip uninstall x", "only pip install"),
        ("pytest tests/none.py", "tests/none.py"),
        ("bash bench/none.sh", "bench/none.sh"),
        ("sbatch --wrap bash_none", "bash_none"),
        ("unheard-of --of", "no test knows the program 'unheard-of'"),
    ],
)
def test_commands_that_do_not_exist_are_found(line: str, message: str) -> None:
    with pytest.raises(Unknown, match=message):
        check_command(line.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prior-fast bench kernels [--op NAME ...] [--device auto|cpu|cuda]", ""),
        ("prior-fast weights inspect, convert, export", ""),
        ("prior-fast evaluate TASK --checkpoint RUN --data DIR [key=value ...]", ""),
        ("train --resume auto", ""),
        ("make test-slow", ""),
        ("train/", ""),
        ("prior-fast bench kernals", "no 'kernals'"),
        ("prior-fast weights inspect, covert", "no 'covert'"),
        ("prior-fast bench kernels [--ops NAME ...]", "no option --ops"),
        ("prior-fast evaluate TASK --chekpoint RUN", "no option --chekpoint"),
        ("prior-fast prepare mimic --images a", "--out"),
        ("train --resmue auto", "no option --resmue"),
        ("make tset", "tset"),
        ("torchrun ... -m prior_fast.cli.main train --dta x ...", "no option --dta"),
    ],
)
def test_code_between_backticks(text: str, message: str) -> None:
    if not message:
        return check_code(text)
    with pytest.raises(Unknown, match=message):
        check_code(text)
    return None


def test_whole_commands_are_told_from_synopses() -> None:
    assert is_whole("prior-fast prepare rsna --images rsna --out rsna-prepared")
    for text in ("prior-fast phantom --out DIR", "prior-fast doctor", "prior-fast x --a|--b", "train --resume auto"):
        assert not is_whole(text)


def small(line: str) -> str:
    return " ".join(shrink(line.split())[0])


def test_commands_become_small_and_keep_their_own_words() -> None:
    assert (
        small("phantom --layout rsna --out x --studies 4000")
        == "phantom --layout rsna --out x --studies 48 --size 128 --workers 1"
    )
    training = small("train --preset paper --data a --out b batch_size=256 model.bank.prototypes=1024").split()
    assert " ".join(training[:7]) == "train --preset paper --data a --out b"
    assert {"batch_size=4", "model.bank.prototypes=1024", "model.text.weights=random"} <= set(training)
    assert "batch_size=256" not in training and "model.bank.prototypes=16" not in training
    assert small("train --data a --out b --resume auto") == "train --data a --out b --resume auto"
    assert small("bench train --count-compiled --out x").startswith("bench train --out x --batch")
    assert small("bench kernels --op a b --out x").startswith("bench kernels --out x --op segment_mean --seconds")
    assert small("bench kernels --op a --out x").startswith("bench kernels --op a --out x --seconds")
    assert shrink(["doctor"]) == (["doctor"], (0,)) and shrink(["bench", "compare", "a", "b"])[1] == (0, 1)
    assert not_run(["make", "demo"]) and not not_run(["prior-fast", "doctor"])


@pytest.mark.parametrize(
    ("code", "compared", "message"),
    [
        ("x = torch.zeros(2, 3)  # [2, 3]", 1, ""),
        ("x = torch.zeros(2, 3)  # [2, 3], zeros", 1, ""),
        ("y = f(\n    1\n)  # [n, 3]: rows\nf(1)  # [n, 3]", 2, ""),
        ("torch.zeros(2), torch.zeros(3)  # [2], [3]", 1 + 1, ""),
        ("torch.tensor([1, 0])  # tensor([1, 0]): 1 + 2", 1, ""),
        ("f(1).T  # real [3, n], imag [3, n]", 2, "imag"),
        ("f(1)  # columns [0, 2] and status 0", 0, ""),
        ("x = 1  # one", 0, ""),
        ("x = torch.zeros(2, 3)  # [3, 2]", 0, r"the shape is \(2, 3\), not \[3, 2\]"),
        ("x = torch.zeros(2, 3)  # [6]", 0, "the shape"),
        ("torch.zeros(2, 3)  # [n, n]", 0, "the shape"),
        ("torch.zeros(2), torch.zeros(3)  # [2], [2]", 0, "the shape"),
        ("torch.tensor([1, 0])  # tensor([0, 1])", 0, "the value"),
    ],
)
def test_comments_of_python_are_compared(code: str, compared: int, message: str) -> None:
    names: dict[str, object] = {}
    exec("import torch\n\ndef f(_):\n    return torch.zeros(2, 3)", names)
    if message:
        with pytest.raises((AssertionError, RuntimeError), match=message):
            run_checked(code, names, "page.md:1")
    else:
        assert run_checked(code, names, "page.md:1") == compared
