"""A look at some studies before the work starts: settings under which nothing can be read are refused at once."""

from collections.abc import Callable, Sequence

from prior_fast.errors import RunError, UsageError
from prior_fast.prepare.find_files import nearest_folder
from prior_fast.prepare.paths import is_file
from prior_fast.prepare.studies.assemble import write_rejected
from prior_fast.prepare.studies.options import PrepareOptions
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.read_report import read_report
from prior_fast.prepare.studies.report_of_study import NO_SECTION, ReadReport
from prior_fast.radiology.report import SECTION_RULES
from prior_fast.radiology.study import Rejection, Study

_LOOKED_AT = 32


def probe(options: PrepareOptions, plan: StudyPlan) -> None:
    """Look at up to 32 studies, spread over the plan.

    Raises:
        UsageError: none of them has an image file, or a report with usable sections. The message names a path that was
            tried, why it failed, and what would fit; `options.rejected` lists the studies.
    """
    step = max(1, len(plan.studies) // _LOOKED_AT)
    looked_at = plan.studies[::step][:_LOOKED_AT]
    if not looked_at:
        return
    lacking = [study for study in looked_at if not any(is_file(plan.images / image.path) for image in study.images)]
    if len(lacking) == len(looked_at):
        first = looked_at[0].images[0].path
        failed = [study.reject(study.images[0].path, "image missing", broken=True, whole=True) for study in looked_at]
        found = nearest_folder(plan.images / first)
        reason = f"no image file is where it should be: {found}; --images names the folder"
        _refuse(options, plan, failed, reason)
    reports = [read_report(plan.reports, study, 1, options.sections) for study in looked_at]
    unread = [report.rejection for report in reports if report.rejection]
    if len(unread) == len(reports):
        _refuse(options, plan, unread, _report_reason(options, plan, looked_at, unread[0]))


def check_strict(options: PrepareOptions, plan: StudyPlan) -> None:
    """Stop at the first file that the source names and that is not there, under `strict`.

    Raises:
        RunError: there is one.
    """
    lacking = (*plan.rejections, *(row for study in plan.studies for row in study.left_out))
    broken = next((rejection for rejection in lacking if rejection.broken), None)
    if options.strict and broken:
        raise RunError(f"--strict: study {broken.shown_study}, {broken.file}: {broken.reason}")


def other_rules(sections: str, with_sections: Callable[[str], int] | None = None) -> str:
    """The rules to try instead of `sections`.

    Args:
        with_sections: counts the reports in which other rules find something.
    """
    others = SECTION_RULES[SECTION_RULES.index(sections) + 1 :]
    found = [(name, with_sections(name)) for name in others] if with_sections else []
    useful = [f"--sections {name} finds text in {count} of them" for name, count in found if count]
    return " and ".join(useful) or "".join(f"try --sections {name}" for name in others[:1])


def _report_reason(options: PrepareOptions, plan: StudyPlan, looked_at: Sequence[Study], first: Rejection) -> str:
    in_a_file = looked_at[0].report.path
    path = plan.reports / first.file
    such_as = f"{path}" if in_a_file else f"that of {first.shown_study} in {first.file}"
    if first.kind == NO_SECTION:

        def with_sections(rules: str) -> int:
            reports: list[ReadReport] = [read_report(plan.reports, study, 1, rules) for study in looked_at]
            return sum(report.rejection is None for report in reports)

        advice = other_rules(options.sections, with_sections)
        return (
            f"--sections {options.sections} finds no findings or impression in any report, such as {such_as}; {advice}"
        )
    if first.kind == "report missing":
        advice = "; --reports names the folder" if "reports" in options.source.arguments else ""
        return f"no report is where it should be: {nearest_folder(path)}{advice}"
    return f"no report can be used, such as {such_as}: {first.reason}"


def _refuse(options: PrepareOptions, plan: StudyPlan, failed: Sequence[Rejection], reason: str) -> None:
    write_rejected(options.rejected, [*plan.rejections, *failed])
    looked = f"looked at {len(failed)} of {len(plan.studies)} studies"
    raise UsageError(f"{reason} ({looked}; {options.rejected} names them)")
