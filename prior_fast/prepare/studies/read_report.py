"""Reading a report that may be a pipe or a device."""

from pathlib import Path

from prior_fast.prepare.paths import irregular
from prior_fast.prepare.studies.report_of_study import ReadReport, read_sentences
from prior_fast.radiology.study import Study


def read_report(folder: Path, study: Study, min_sentences: int, sections: str) -> ReadReport:
    """Like `read_sentences`, but only a regular file is opened: a pipe would make the reader wait for ever."""
    path = study.report.path
    if path and (reason := irregular(folder / path)):
        return ReadReport([], study.reject(path, "report not readable", f"({reason})", broken=True, whole=True))
    return read_sentences(folder, study, min_sentences, sections)
