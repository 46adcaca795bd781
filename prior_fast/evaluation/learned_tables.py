"""The printed tables and the csv files of `prior-fast evaluate generation` and `bank`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prior_fast.evaluation.bank_purity import EVERY, NAMING
from prior_fast.evaluation.counterfactual import COMPARISONS, TRUE, Errors
from prior_fast.evaluation.generated_findings import GeneratedFindings, Reports
from prior_fast.evaluation.statements import FINDINGS

ALL = "all findings"


@dataclass(frozen=True)
class Table:
    """A table with its title or file name, and a line to print below it."""

    name: str
    header: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    note: str = ""


def bank_table(metrics: dict[str, Any]) -> Table:
    """Purity and normalized mutual information of the prototypes, of k-means, and by chance."""
    rows = []
    for scope, name in ((EVERY, "all"), (NAMING, "naming")):
        found = metrics[scope]
        for question, purity in found["purity"].items():
            information = found["normalized_mutual_information"][question]
            numbers = [value[key] for value in (purity, information) for key in ("value", "k_means", "chance")]
            rows.append((f"{question} ({name})", *map(number, numbers)))
    header = ("label (sentences)", "purity", "k-means", "chance", "NMI", "k-means", "chance")
    note = "all: every sentence; naming: those that name a finding; NMI: normalized mutual information"
    return Table("does a prototype stand for one thing?", header, rows, note)


def reconstruction_table(summary: dict[str, Any]) -> Table:
    """For each finding the share of the targets where the true report is better than each other one."""
    rows = [
        (name, compared["without_finding"]["targets"], *(_share(compared[key]) for key in COMPARISONS))
        for name, compared in ((ALL, summary["overall"]), *summary["findings"].items())
    ]
    rows.append(("chance", "", *("0.500" for _ in COMPARISONS)))
    note = (
        "the error inside the finding's mask, compared with that of the report without the sentences of the finding, "
        "without as many other sentences (a control), with left and right swapped, of another study"
    )
    header = ("finding", "targets", "without it", "less others", "swapped", "another")
    return Table("reconstruction: how often the true report has the lower error", header, rows, note)


def generated_table(metrics: dict[str, Any]) -> Table:
    """For each finding precision, recall, F1, the F1 of another image's prediction, and that of the report itself."""
    own, matched = metrics["from_reports"], metrics["matched"]
    pairs = [(ALL, metrics["overall"], own["overall"])]
    pairs += [(name, found, own["findings"][name]) for name, found in metrics["findings"].items()]
    rows = [
        (
            *(name, found["images"]),
            *(number(found[key]["value"]) for key in ("precision", "recall", "f1")),
            *(number(found["f1"]["chance"]), number(best["f1"]["value"])),
        )
        for name, found, best in pairs
    ]
    header = ("finding", "images", "precision", "recall", "F1", "chance", "report")
    note = (
        "chance: F1 of the prototypes generated from another image; "
        "report: F1 of the report's own sentences, read from the bank. Of the findings that the reports' sentences "
        f"state, the predictions matched to them state {number(matched['value'])} (chance {number(matched['chance'])})"
    )
    return Table("generated prototypes: the findings that they state, against the report's", header, rows, note)


def prototypes_file(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each prototype in use."""
    header = ("prototype", "sentences", "finding", "side", "presence", "purity", "typical", "typical_2", "typical_3")
    cells = [(*(row[name] for name in header[:6]), *row["typical"], *[""] * (3 - len(row["typical"]))) for row in rows]
    return Table("prototypes.csv", header, cells)


def reconstruction_file(errors: Errors) -> Table:
    """A row for each target, with the error of each report; empty where there is none."""
    names = (TRUE, *COMPARISONS)
    rows = [
        (
            *(target.image_row, target.finding, int(target.mask.sum())),
            *("" if np.isnan(errors.squared[name][index]) else float(errors.squared[name][index]) for name in names),
        )
        for index, target in enumerate(errors.targets)
    ]
    header = ("image_row", "finding", "mask_pixels", *(f"error_{name}" for name in names))
    return Table("reconstruction.csv", header, rows)


def generated_file(reports: Reports, generated: GeneratedFindings) -> Table:
    """A row for each image, with the findings of both sets."""

    def names(there: np.ndarray) -> str:
        return "; ".join(name for name, yes in zip(FINDINGS, there) if yes)

    header = ("image_row", "findings_of_the_report", "findings_of_the_generated_prototypes")
    rows = [
        (int(row), names(true), names(said))
        for row, true, said in zip(reports.rows, generated.truth, generated.predicted)
    ]
    return Table("generated.csv", header, rows)


def number(value: float | None) -> str:
    """Three decimals; "-" for a value that does not exist."""
    return "-" if value is None else f"{value:.3f}"


def _share(compared: dict[str, Any]) -> str:
    return number(compared["true_is_better"]["value"])
