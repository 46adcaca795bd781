"""Tables and the picture are made from result files, and the committed pages match the committed result files."""

import json
from pathlib import Path

import pytest
from PIL import Image

from prior_fast.cli.main import main
from prior_fast.errors import UsageError
from prior_fast.measure.page.fill import fill
from prior_fast.measure.page.kinds import KINDS, ops

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results"


def call(who: str, milliseconds: float, ours: bool = False, spread: float = 1.0) -> dict:
    return {
        **{"op": "segment_mean", "shape": "B=16 T=90", "direction": "forward", "dtype": "float32"},
        **{"who": who, "ours": ours, "backend": "triton" if ours else None, "milliseconds": milliseconds},
        **{"passes": [milliseconds * share for share in (spread, 1, 1 / spread)], "limit_milliseconds": 0.5},
        **{"share_of_limit": 0.5 / milliseconds, "binds": "memory"},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [call("prior_fast", 1.0, ours=True), call("fast", 0.25), call("alike", 0.95, spread=0.8), call("slow", 4.0)]
    (tmp_path / "kernels.json").write_text(json.dumps({"rows": rows}))
    return tmp_path


def page(kind: str, file: str = "kernels.json") -> str:
    return f"before\n<!-- table {kind} {file} -->\nold\n\nlines\n<!-- end of table -->\nafter\n"


def test_competitors_and_who_is_faster(results: Path) -> None:
    filled = fill(page("competitors"), results, "page")
    lines = filled.split("\n")
    assert lines[:3] == ["before", "<!-- table competitors kernels.json -->", ""]
    assert lines[-4:] == ["", "<!-- end of table -->", "after", ""]
    assert "old" not in filled
    assert "| segment_mean | B=16 T=90 | fwd | float32 | triton 1,000 | fast | 250 | 0.25 | 0.25 to 0.25 |" in lines
    assert "| segment_mean | B=16 T=90 | fwd | float32 | triton 1,000 | slow | 4,000 | 4.00 | 4.00 to 4.00 |" in lines
    # A competitor must be faster in each pass to be listed.
    assert "| alike | 950 | 0.95 | 0.76 to 1.19 |" in fill(page("competitors"), results, "page")
    slower = fill(page("slower"), results, "page")
    assert "| fast |" in slower and "| alike |" not in slower and "| slow |" not in slower
    assert "| 500.0 | 50% | memory |" in fill(page("limits"), results, "page")


def test_an_example_in_a_code_block_stays(results: Path) -> None:
    text = "\n".join(f"    {line}" for line in page("limits").split("\n"))
    assert fill(text, results, "page") == text


def test_filling_twice_changes_nothing(results: Path) -> None:
    once = fill(page("limits") + page("slower"), results, "page")
    assert fill(once, results, "page") == once


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (page("limit"), "page, line 2: unknown table 'limit': did you mean 'limits'"),
        (page("limits", "nothing.json"), "page, line 2: .*nothing.json can't be read"),
        (page("train"), "page, line 2: .*kernels.json is no report for a table 'train'"),
        ("<!-- table limits kernels.json -->\n", "page, line 1: the table has no <!-- end of table -->"),
        ("<!-- table limits -->\n", "page, line 1: must be <!-- table KIND FILE -->"),
    ],
)
def test_wrong_marks(text: str, message: str, results: Path) -> None:
    with pytest.raises(UsageError, match=message):
        fill(text, results, "page")


def test_the_command_writes_only_without_check(results: Path, capsys: pytest.CaptureFixture) -> None:
    path = results / "page.md"
    path.write_text(page("limits"))
    words = ["bench", "page", str(path), "--results", str(results)]
    assert main([*words, "--check"]) == 1
    assert "run without --check" in capsys.readouterr().err
    assert path.read_text() == page("limits")
    assert main(words) == 0
    assert "| segment_mean |" in path.read_text()
    assert main([*words, "--check"]) == 0


def test_the_docs_are_what_the_reports_make_of_them() -> None:
    written = [*(ROOT / "docs").rglob("*.md"), *RESULTS.rglob("*.md")]
    pages = [path for path in written if "\n<!-- table" in path.read_text(encoding="utf-8")]
    assert len(pages) >= 3
    assert main(["bench", "page", *map(str, pages), "--results", str(RESULTS), "--check"]) == 0


def test_every_kind_has_a_report_here() -> None:
    made = {kind for kind in KINDS for path in RESULTS.rglob("*.json") if fills(kind, path)}
    assert made == set(KINDS)


def fills(kind: str, path: Path) -> bool:
    try:
        return bool(KINDS[kind](json.loads(path.read_text())))
    except (KeyError, TypeError):
        return False


def test_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = RESULTS / "cpu-2-cores", tmp_path / "speed.png"
    files = {"train": "train.json", "loader": "loader-phantom.json", "kernels": "kernels.json"}
    words = [word for name, file in files.items() for word in (f"--{name}", str(folder / file))]
    assert main(["bench", "picture", *words, "--out", str(out)]) == 0
    with Image.open(out) as image:
        # Three panels side by side, with bars in them.
        assert image.width > 2 * image.height and len(image.convert("RGB").getcolors(1 << 24)) > 50
    swapped = [words[0], words[3], *words[2:]]
    assert main(["bench", "picture", *swapped, "--out", str(out)]) == 2
    assert "is no report of this kind" in capsys.readouterr().err


def test_an_op_has_one_row_its_first_shape_with_its_gradient_and_the_fastest_competitor() -> None:
    def row(at: int, direction: str, who: str, milliseconds: float, axis: str = "batch") -> dict:
        return {
            **{
                "op": "an_op",
                "shape": f"{axis} B={at}",
                "axis": axis,
                "at": at,
                "direction": direction,
                "dtype": "float32",
            },
            **{"who": who, "ours": who == "prior_fast", "backend": "triton", "milliseconds": milliseconds},
            **{"passes": [milliseconds] * 3, "limit_milliseconds": 0.001, "share_of_limit": 0.5},
        }

    rows = [
        row(16, "forward+backward", "prior_fast", 7.0, axis="width"),
        row(16, "forward", "prior_fast", 0.5),
        row(16, "forward", "other", 0.1),
        row(16, "forward+backward", "prior_fast", 2.0),
        row(16, "forward+backward", "slow", 8.0),
        row(16, "forward+backward", "quick", 5.0),
        row(32, "forward+backward", "prior_fast", 9.0),
    ]
    (line,) = ops({"rows": rows})[2:]
    assert line == "| an_op | batch B=16 | fwd+bwd | float32 | triton | 2,000 | 1.0 | 50% | quick 2.50 |"
    rows += [row(128, "forward", "prior_fast", 1.5), row(128, "forward+backward", "prior_fast", 6.0)]
    rows += [row(256, "forward+backward", "prior_fast", 9.0), row(128, "forward+backward", "slow", 9.0)]
    rows += [{**found, "dtype": "bfloat16"} for found in rows]
    (line,) = ops({"rows": rows})[2:]
    assert line == "| an_op | batch B=128 | fwd+bwd | float32 | triton | 6,000 | 1.0 | 50% | slow 1.50 |"
