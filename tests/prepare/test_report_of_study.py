"""Reports that are no reports are left out with a reason, and the others are read."""

from pathlib import Path

import pytest

from prior_fast.prepare.studies.report_of_study import read_sentences
from prior_fast.radiology.study import Report, Study
from prior_fast.radiology.text_files import MOST_REPORT_BYTES


def reason(folder: Path, report: Report) -> str:
    found = read_sentences(folder, Study(1, 2, "train", (), report, place="t.csv, line 2"), 1, "whole")
    assert found.rejection is not None and found.rejection.broken and found.rejection.whole_study
    assert not found.sentences and found.rejection.file == (report.path or "t.csv, line 2")
    return found.rejection.reason


def test_a_report_file_of_more_than_4_million_bytes_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a " * (MOST_REPORT_BYTES // 2) + b".")
    wanted = "report not readable (no report: it has more than 4,000,000 bytes)"
    assert reason(tmp_path, Report("a.txt")) == wanted


@pytest.mark.parametrize(
    "report",
    [Report(text="a" * (MOST_REPORT_BYTES + 1)), Report(sections=("a" * MOST_REPORT_BYTES, "b"))],
    ids=["text", "sections"],
)
def test_so_is_a_report_of_a_table(tmp_path: Path, report: Report) -> None:
    wanted = "report not readable (no report: it has more than 4,000,000 characters)"
    assert reason(tmp_path, report) == wanted


def test_a_shorter_report_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Clear. " * 1000, encoding="utf-8")
    found = read_sentences(tmp_path, Study(1, 2, "train", (), Report("a.txt")), 1, "whole")
    assert found.rejection is None and found.sentences == ["Clear."] * 1000
