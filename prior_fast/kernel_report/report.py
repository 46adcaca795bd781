"""Reports every version of every kernel on every architecture, its problems, and the least time of each call."""

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from prior_fast.errors import RunError, UsageError
from prior_fast.hardware.chips import CHIPS, Chip, least_time
from prior_fast.kernel_report.collect import DTYPES, Collected, collect, idle, op_names, require_compiler
from prior_fast.kernel_report.compile import Compiled, compile_version, settings
from prior_fast.kernel_report.resources import occupancy
from prior_fast.kernel_report.specialize import Version
from prior_fast.spelling import nearest

# Below this many compilations, starting another process takes longer than it saves.
WORTH_A_PROCESS = 16


def report(archs: Sequence[str], ops: Sequence[str], out: Path | None, workers: int | None = None) -> None:
    """Compile, print two tables, and write `report.json` to `out`.

    Args:
        archs: "sm_80", "sm_90".
        ops: names of ops; empty: all that have kernels.
        workers: processes that compile (default: one for each core, one in all for few compilations).

    Raises:
        UsageError: an unknown name.
        RunError: a kernel spills, takes more shared memory than a block may have, does not compile, or is never
            launched by its op's bench file; raised after the report is written.
    """
    from prior_fast.console import busy, stdout
    from prior_fast.files import write_json
    from prior_fast.kernel_report.print_tables import print_kernels, print_limits

    ops = _known("op", ops or op_names(), op_names())
    archs = _known("architecture", archs, list(CHIPS))
    require_compiler()
    collected = []
    with busy("collecting launches", len(ops)) as advance:
        for op in ops:
            collected.append(collect(op))
            advance(1)
    rows = _compile_all(collected, archs, workers)
    limits = [_limit(case, archs) for found in collected for case in found.cases]
    problems = [(row["kernel"], row["problem"]) for row in rows if row["problem"]]
    problems += [(name, f"{name} is launched by no call of the bench files") for name in idle(collected)]
    print_kernels(rows)
    print_limits(limits, [CHIPS[arch].name for arch in archs])
    if out:
        import triton

        facts = {"triton": triton.__version__, "architectures": list(archs), "dtypes": list(DTYPES)}
        write_json(
            out / "report.json",
            {**facts, "kernels": rows, "limits": limits, "problems": [words for _, words in problems]},
        )
        stdout.print(f"report.json is in {out}")
    if problems:
        first, words = problems[0]
        others = list(dict.fromkeys(name for name, _ in problems if name != first))
        raise RunError(words + (f"; also wrong: {', '.join(others)}" if others else ""))


def _known(what: str, words: Sequence[str], known: Sequence[str]) -> list[str]:
    if not words:
        raise UsageError(f"no {what} is named: choose from {', '.join(known)}")
    for word in words:
        if word not in known:
            hint = nearest(word, known) or f": choose from {', '.join(known)}"
            raise UsageError(f"unknown {what} {word!r}{hint}")
    return list(dict.fromkeys(words))


def _compile_all(collected: list[Collected], archs: Sequence[str], workers: int | None) -> list[dict[str, Any]]:
    """A row of the report for each version and architecture."""
    # Ops share kernels: a version is compiled once, and reported for each op.
    jobs = list(dict.fromkeys((version, arch) for found in collected for version in found.versions for arch in archs))
    results = dict(zip(jobs, _compile_jobs(jobs, workers)))
    return [
        make_row(found.op, version, arch, origins, results[version, arch])
        for found in collected
        for version, origins in found.versions.items()
        for arch in archs
    ]


def _compile_jobs(jobs: list[tuple[Version, str]], workers: int | None) -> list[Compiled]:
    from prior_fast.console import progress
    from prior_fast.processes import parallel_map, usable_cores

    workers = workers or (usable_cores() if len(jobs) > WORTH_A_PROCESS else 1)
    results: list[Compiled] = []
    with progress() as bar:
        task = bar.add_task("compiling", total=len(jobs))
        try:
            for result in parallel_map(compile_version, jobs, workers):
                results.append(result)
                bar.advance(task)
        except BrokenProcessPool:
            version, arch = jobs[len(results)]
            raise RunError(f"a compiling process died at {version.kernel} on {arch} or a later one") from None
    return results


def make_row(
    op: str, version: Version, arch: str, origins: list[tuple[str, str]], compiled: Compiled
) -> dict[str, Any]:
    """The row of report.json for one version on one architecture."""
    chip, code = CHIPS[arch], compiled.code
    row: dict[str, Any] = {
        "op": op,
        "kernel": version.kernel,
        "arch": arch,
        "dtypes": list(dict.fromkeys(dtype for dtype, _ in origins)),
        "reached_by": list(dict.fromkeys(who for _, who in origins)),
        "arguments": dict(version.types),
        "constants": {name: _plain(value) for name, value in version.constants},
        "aligned": list(version.aligned),
        "warps": version.warps,
        "stages": version.stages,
        "problem": _problem(version, arch, origins, compiled),
    }
    if code is None:
        return row
    resident = occupancy(chip, code.registers, compiled.shared, version.warps)
    return row | {
        "registers": code.registers,
        "shared_bytes": compiled.shared,
        "stack_bytes": code.stack,
        "spills": code.spills,
        "tensor_core": code.tensor_core,
        "dots": compiled.dots,
        "blocks_per_multiprocessor": resident.blocks,
        "warps_per_multiprocessor": resident.warps,
        "occupancy": resident.warps / chip.warps,
        "limited_by": list(resident.limits),
    }


def _problem(version: Version, arch: str, origins: list[tuple[str, str]], compiled: Compiled) -> str | None:
    dtype, call = origins[0]
    name = f"{version.kernel} on {arch} ({dtype}, {call}: {settings(version)})"
    code, most = compiled.code, CHIPS[arch].shared_block
    if code is None:
        return f"{name} does not compile: {compiled.error}"
    if compiled.shared > most:
        return f"{name} takes {compiled.shared} bytes of shared memory, more than the {most} of a block"
    if code.spills:
        return f"{name} spills registers: {code.spills} loads and stores of local memory"
    return None


def _limit(case: dict[str, Any], archs: Sequence[str]) -> dict[str, Any]:
    """A case, with the least time that each chip needs for it."""
    chips: list[Chip] = [CHIPS[arch] for arch in archs]
    times = {chip.name: least_time(chip, case["dtype"], case["bytes"], case["operations"]) for chip in chips}
    return case | {"chips": {name: {"seconds": time, "bound": bound} for name, (time, bound) in times.items()}}


def _plain(value: Any) -> Any:
    """A constant as a JSON value; Triton's types become their names."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
