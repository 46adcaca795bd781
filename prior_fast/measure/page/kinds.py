"""The tables that a page can have, each made from one result file of a benchmark."""

from collections.abc import Callable
from statistics import mean, median
from typing import Any

from prior_fast.measure.demo import tables as demo
from prior_fast.measure.kernels.rows import PASSES, pairs, times_ours
from prior_fast.measure.ladder import report as ladder
from prior_fast.measure.predict import report as prediction
from prior_fast.tables import markdown_table

Report = dict[str, Any]
Row = dict[str, Any]

PAPERS_BATCH = 128  # reports


def train(report: Report) -> list[str]:
    """A row for each rung of the ladder."""
    return markdown_table(
        ladder.HEADER, [ladder.table_cells(row) for row in report["rungs"]], left=(0, len(ladder.HEADER) - 1)
    )


def loader(report: Report) -> list[str]:
    """A row for each source of batches."""
    rows = [
        (row["source"], f"{row['pairs_per_second']:,.0f}", f"{row['consumer_waits']:.1%}") for row in report["rows"]
    ]
    return markdown_table(("source", "pairs/s", "consumer waits"), rows)


def loader_parts(report: Report) -> list[str]:
    """The time of each part of making a batch, in one thread."""
    return markdown_table(("part", "ms"), [(name, f"{value:.1f}") for name, value in report["parts_ms"].items()])


def ops(report: Report) -> list[str]:
    """A row for each op at PRIOR's own widths: forward and backward if it has a gradient.

    The batch is the paper's, or the smallest if that was not measured.
    """
    own: dict[str, Row] = {}
    for row in report["rows"]:
        if not row["ours"] or row["axis"] != "batch":
            continue
        best = own.setdefault(row["op"], row)
        nearer = row["at"] == PAPERS_BATCH != best["at"]
        fuller = row["shape"] == best["shape"] and row["direction"] != "forward"
        if row["dtype"] == best["dtype"] and (nearer or fuller):
            own[row["op"]] = row
    others = pairs(report)
    rows = []
    for row in own.values():
        times = {other["who"]: times_ours(other, row).median for ours, other in others if ours is row}
        fastest = min(times, key=lambda who: times[who], default=None)
        rows.append((
            *(row["op"], row["shape"], PASSES[row["direction"]], row["dtype"], row["backend"] or "-"),
            f"{1e3 * row['milliseconds']:,.0f}",
            f"{1e3 * row['limit_milliseconds']:,.1f}",
            f"{row['share_of_limit']:.0%}",
            "-" if fastest is None else f"{fastest} {times[fastest]:.2f}",
        ))  # fmt: skip
    header = ("op", "shape", "pass", "dtype", "backend", "us", "limit us", "of limit", "fastest competitor, times ours")
    return markdown_table(header, rows, left=(0, 1, 2, 3, 4, 8))


def limits(report: Report) -> list[str]:
    """Our calls and this machine's limit."""
    rows = [
        (
            *(row["op"], row["shape"], PASSES[row["direction"]], row["dtype"], row["backend"] or "-"),
            f"{1e3 * row['milliseconds']:,.0f}",
            f"{1e3 * row['limit_milliseconds']:,.1f}",
            f"{row['share_of_limit']:.0%}",
            row["binds"],
        )
        for row in report["rows"]
        if row["ours"]
    ]
    header = ("op", "shape", "pass", "dtype", "backend", "us", "limit us", "of limit", "binds")
    return markdown_table(header, rows, left=(0, 1, 2, 3, 4, 8))


def competitors(report: Report) -> list[str]:
    """Our calls and each competitor's, from the same run."""
    return markdown_table(_HEADER, [_against(ours, other) for ours, other in pairs(report)], left=_LEFT)


def slower(report: Report) -> list[str]:
    """The calls at which a competitor was faster in every pass."""
    lost = [(ours, other) for ours, other in pairs(report) if times_ours(other, ours).spread[1] < 1]
    return markdown_table(_HEADER, [_against(ours, other) for ours, other in lost], left=_LEFT) if lost else ["None."]


def memory(report: Report) -> list[str]:
    """The counted memory of a step, and the estimate."""
    gigabytes = 1e9
    rows = [(f"kept for the backward pass, {p['pairs']} pairs", p["saved_bytes"]) for p in report["points"]]
    rows += [
        ("the same, for each pair more", report["saved_bytes_per_pair"]),
        ("parameters, gradients, Adam's moments", report["parameter_bytes"]),
        (f"together at {report['at']} pairs, estimated", report["estimate_bytes"]),
    ]
    return markdown_table(("what", "GB"), [(name, f"{value / gigabytes:.2f}") for name, value in rows])


def pretraining(report: Report) -> list[str]:
    """Fine-tuned tasks with and without pre-training."""
    from prior_fast.measure.bench_pretraining import HEADER, cells

    return markdown_table(HEADER, [cells(row) for row in report["rows"]], left=(0, 1, 2, 3, 7))


def steps(report: Report) -> list[str]:
    """A row for each stage that bench/gpu/steps.py has timed."""
    rows = []
    for own in report["stages"]:
        typical = median(own["milliseconds"])
        rows.append((
            *(str(own["stage"]), str(own["batch"]), f"{mean(own['tokens']):,.0f}"),
            *(f"{typical:.1f}", f"{min(own['milliseconds']):.1f} to {max(own['milliseconds']):.1f}"),
            f"{1e3 * own['batch'] / typical:,.0f}",
            f"{1e3 * own['tflop_per_step'] / typical:.0f}",
            f"{median(own['host_milliseconds']):.1f}",
            f"{own['reserved_bytes'] / 2**30:.1f}" if "reserved_bytes" in own else "-",
        ))  # fmt: skip
    header = ("stage", "pairs", "tokens", "ms", "tens of steps", "pairs/s", "TFLOP/s", "host alone, ms", "memory, GiB")
    return markdown_table(header, rows)


def parts(report: Report) -> list[str]:
    """The device's time of a step by part, for the last stage that has it."""
    own = [stage for stage in report["stages"] if "parts" in stage][-1]
    rows = [(row["part"], f"{row['milliseconds']:.1f}", f"{row['launches']:.0f}") for row in own["parts"]]
    whole = [sum(row[key] for row in own["parts"]) for key in ("milliseconds", "launches")]
    rows.append(("together", f"{whole[0]:.1f}", f"{whole[1]:.0f}"))
    return markdown_table(("part", "ms", "launches"), rows)


def predict(report: Report) -> list[str]:
    """The counted work and the predicted time of each part of a step, and the measured time if there is one."""
    return markdown_table(prediction.header(report), prediction.cells(report))


def machine(report: Report) -> list[str]:
    """The machine of the measurement, in one line."""
    facts = report["machine"]
    where = facts["processor"] if facts.get("GPU", "none") == "none" else facts["GPU"]
    versions = facts["versions"]
    parts = [where, f"{facts['CPU cores']} cores", f"{facts['threads']} threads", f"torch {versions['torch']}"]
    return [", ".join(parts) + "."]


KINDS: dict[str, Callable[[Report], list[str]]] = {
    "train": train,
    "loader": loader,
    "loader-parts": loader_parts,
    "ops": ops,
    "limits": limits,
    "competitors": competitors,
    "slower": slower,
    "memory": memory,
    "pretraining": pretraining,
    "demo-seeds": demo.seeds_table,
    "demo-sentences": demo.sentences_table,
    "demo-seconds": demo.seconds_table,
    "demo-defects": demo.defects_table,
    "demo-planted": demo.planted_table,
    "demo-steps": demo.steps_table,
    "steps": steps,
    "parts": parts,
    "predict": predict,
    "machine": machine,
}

_HEADER = ("op", "shape", "pass", "dtype", "ours, us", "competitor", "us", "times", "spread")
_LEFT = (0, 1, 2, 3, 5)


def _against(ours: Row, other: Row) -> tuple[str, ...]:
    times = times_ours(other, ours)
    return (
        *(ours["op"], ours["shape"], PASSES[ours["direction"]], ours["dtype"]),
        f"{ours['backend']} {1e3 * ours['milliseconds']:,.0f}",
        other["who"],
        f"{1e3 * other['milliseconds']:,.0f}",
        f"{times.median:.2f}",
        "{:.2f} to {:.2f}".format(*times.spread),
    )
