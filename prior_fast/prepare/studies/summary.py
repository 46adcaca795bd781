"""What became of the studies of a source: the content of report.json and the most frequent reasons."""

from collections import Counter
from typing import Any

from prior_fast.prepare.find_files import nearest_folder
from prior_fast.prepare.studies.builder import IMAGE_MISSING
from prior_fast.prepare.studies.chunks import ChunkResult
from prior_fast.prepare.studies.options import PrepareOptions
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.probe import other_rules
from prior_fast.prepare.studies.report_of_study import NO_SECTION
from prior_fast.radiology.study import Rejection


def make_report(
    options: PrepareOptions,
    plan: StudyPlan,
    splits: dict[str, dict[str, int]],
    rejections: list[Rejection],
    results: list[ChunkResult],
) -> dict[str, Any]:
    """The content of report.json: what was kept, what was left out, and how fast the chunks were prepared."""
    decoded, seconds = sum(result.decoded for result in results), sum(result.seconds for result in results)
    return {
        "layout": options.source.layout,
        "arguments": dict(options.source.arguments),
        "decode": options.decode,
        "sections": options.sections,
        "splits": splits,
        "rejected": _count_rejections(rejections),
        "broken_files": sum(rejection.broken for rejection in rejections),
        "notes": [*plan.notes, *_notes(options, rejections, results)],
        "workers": options.workers,
        "images_per_second_per_core": round(decoded / seconds, 2) if seconds else None,
    }


def _count_rejections(rejections: list[Rejection]) -> list[dict[str, Any]]:
    """The numbers of studies and single files left out for each kind of reason, the most frequent first."""
    studies = Counter(rejection.kind for rejection in rejections if rejection.whole_study)
    files = Counter(rejection.kind for rejection in rejections if not rejection.whole_study)
    return [
        {"reason": kind, "studies": studies[kind], "files": files[kind]}
        for kind, _ in sorted((studies + files).items(), key=lambda item: (-item[1], item[0]))
    ]


def most_frequent(rejections: list[Rejection], plan: StudyPlan) -> str:
    """The most frequent reasons, each with its number of studies and one file."""
    whole = [rejection for rejection in rejections if rejection.whole_study]
    first = {rejection.kind: rejection for rejection in reversed(whole)}
    counts = _count_rejections(whole)[:3]
    return (
        ", ".join(f"{row['reason']} ({row['studies']}){_example(first[row['reason']], plan)}" for row in counts)
        or "none"
    )


def _example(rejection: Rejection, plan: StudyPlan) -> str:
    """One file of a reason; for a missing image, what is there instead."""
    if rejection.kind == IMAGE_MISSING:
        return f": {nearest_folder(plan.images / rejection.file)}"
    return f", such as {rejection.file} {rejection.detail}".rstrip() if rejection.file else ""


def empty_splits(splits: dict[str, dict[str, int]]) -> list[str]:
    """A note on each split that has no study: training measures on one of them, evaluation on the other."""
    return [f"no study is to {split}" for split in ("validate", "test") if not splits[split]["studies"]]


def _notes(options: PrepareOptions, rejections: list[Rejection], results: list[ChunkResult]) -> list[str]:
    notes = []
    if other := sum(result.other_encoding for result in results):
        notes.append(f"{other} report(s) are not UTF-8 and were read in another encoding, cp1252 unless marked")
    without = sum(rejection.kind == NO_SECTION for rejection in rejections)
    if 2 * without > (studies := sum(result.studies for result in results)):
        notes.append(
            f"the rules --sections {options.sections} found no findings or impression in {without} of {studies} "
            f"reports; {other_rules(options.sections)}"
        )
    return notes
