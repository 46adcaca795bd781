"""The sentences of a study's report, or the reason why the study is left out."""

from dataclasses import dataclass
from pathlib import Path

from prior_fast.radiology.report import report_sentences
from prior_fast.radiology.sections import EXCLUDED_STUDIES
from prior_fast.radiology.sentences import split_sentences
from prior_fast.radiology.study import Rejection, Study
from prior_fast.radiology.text_files import UTF8, NotText, check_report_size, read_report_file

MIMIC = "mimic"
NO_SECTION = "no findings or impression"


@dataclass(frozen=True)
class ReadReport:
    """The sentences, findings before impression; or a rejection without sentences.

    Attributes:
        other_encoding: whether the file is not UTF-8.
    """

    sentences: list[str]
    rejection: Rejection | None = None
    other_encoding: bool = False


def read_sentences(folder: Path, study: Study, min_sentences: int, sections: str) -> ReadReport:
    """Read a study's report.

    Args:
        folder: the folder to which the path of the report is relative.
        sections: how sections are found in a whole report (`radiology.report.SECTION_RULES`).
    """
    report = study.report
    where, other = report.path or study.place, False

    def reject(kind: str, detail: str = "", broken: bool = False) -> ReadReport:
        return ReadReport([], study.reject(where, kind, detail, broken, whole=True), other)

    given = sum(map(len, (report.text or "", *(report.sections or ()))))
    try:
        check_report_size(given, "characters")
    except NotText as error:
        return reject("report not readable", f"({error})", broken=True)
    if report.sections is not None:
        found: list[str] | None = [sentence for text in report.sections for sentence in split_sentences(text)]
    else:
        text = report.text
        if text is None:
            try:
                text, encoding = read_report_file(folder / report.path)
            except FileNotFoundError:
                return reject("report missing", broken=True)
            except NotText as error:
                return reject("report not readable", f"({error})", broken=True)
            except OSError as error:
                return reject("report not readable", f"({error.strerror})", broken=True)
            other = not encoding.startswith(UTF8)
        name = f"s{study.study_id}"
        if sections == MIMIC and name in EXCLUDED_STUDIES:
            return reject("report is on the list of those whose sections can't be told apart")
        found = report_sentences(text, sections, name)
    if found is None:
        return reject(NO_SECTION)
    if not found:
        return reject("report has no sentence")
    if len(found) < min_sentences:
        return reject(f"fewer than {min_sentences} sentences", f"({len(found)} found)")
    return ReadReport(found, None, other)
