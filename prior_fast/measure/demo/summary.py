"""`prior-fast bench demo`: what a model reached, in five lines."""

from pathlib import Path
from typing import Any

from prior_fast.console import stdout
from prior_fast.errors import UsageError
from prior_fast.files import write_json
from prior_fast.measure.demo.lines import (
    Line,
    attention_line,
    prototypes_line,
    reconstruction_line,
    retrieval_line,
    zero_shot_line,
)
from prior_fast.measure.demo.read import Report, read_ceiling, read_results

KIND, FILE = "demo", "summary.json"


def summarize_demo(folder: Path, ceiling: Path | None) -> dict[str, Any]:
    """Print five lines about the results in `folder`, and write summary.json there.

    ceiling: a file of `prior-fast bench ceiling`; None leaves its values out.

    Returns:
        The content of summary.json.

    Raises:
        UsageError: a file is missing, can't be read, or has other metrics.
    """
    reports = read_results(folder)
    best = read_ceiling(ceiling) if ceiling else None
    try:
        found = lines(reports, best)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder}: a result has other metrics than the demo's ({error!r}): evaluate with the default settings"
        ) from None
    for line in found:
        stdout.print(str(line))
    report = {
        "kind": KIND,
        "ceiling": None if ceiling is None else str(ceiling),
        "lines": [str(line) for line in found],
        "open": [problem for line in found for problem in line.open],
        "figures": [figure.to_dict() for line in found for figure in line.figures],
    }
    write_json(folder / FILE, report)
    return report


def lines(reports: dict[str, Report], ceiling: Report | None) -> list[Line]:
    """The five lines from the results of the four tasks."""
    return [
        zero_shot_line(reports["zero-shot"], ceiling),
        retrieval_line(reports["retrieval"], ceiling),
        attention_line(reports["zero-shot"]),
        reconstruction_line(reports["generation"]),
        prototypes_line(reports["bank"], reports["generation"]),
    ]
