"""Runs the demo for several seeds, each with a made-up dataset of its own, and joins their figures:

    python -m prior_fast.bench.demo.seeds --out OUT [--seeds 1 2 3] [--studies 4500] [key=value ...]

key=value: settings of the training. OUT/seed-S has the results of a seed, OUT/demo-seeds.json the figures of all of
them: each value with chance, mean, least, greatest and standard deviation, and the seconds of each command. The same
command goes on after a stop.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prior_fast.bench.demo.commands import Command, log_of, run_commands, run_process, split_settings
from prior_fast.files import write_json
from prior_fast.hardware.machine import describe_machine

KIND, FILE = "demo-seeds", "demo-seeds.json"
EVALUATED = "evaluations, pictures"
# `make demo` runs them in these two processes at once.
GROUPS = (("zero-shot", "retrieval", "generation"), ("bank", "pictures"))


def commands(folder: Path, seed: int, studies: int, words: Sequence[str], with_ceiling: bool) -> list[Command]:
    """The commands of the demo with one seed, and the ceiling."""
    phantom, data, run, ceiling = (folder / name for name in ("phantom", "prepared", "run", "ceiling.json"))

    def command(name: str, makes: Path, *words: str) -> Command:
        return Command(name, (*name.split(), *words), makes)

    compared = ("--ceiling", str(ceiling)) if with_ceiling else ()
    made = [command("bench ceiling", ceiling, "--data", str(data), "--like", str(run), "--out", str(ceiling))]
    sizes = ("--studies", str(studies), "--size", "224", "--seed", str(seed))
    return [
        command("phantom", phantom, "--out", str(phantom), *sizes),
        command("prepare mimic", data, "--images", str(phantom), "--out", str(data)),
        command("train", run, "--preset", "tiny", "--data", str(data), "--out", str(run), f"seed={seed}", *words),
        Command(EVALUATED, ("demo", str(folder)), folder / "pictures"),
        *(made if with_ceiling else []),
        Command("bench demo", ("bench", "demo", str(folder), *compared), folder / "summary.json"),
    ]


def run(folder: Path, command: Command) -> int:
    """Run a command in a process of its own, the evaluations in two at once; the exit code."""
    if command.name != EVALUATED:
        return run_process(folder, command)
    module = [sys.executable, "-m", "prior_fast.bench.demo.evaluate", str(folder)]
    with log_of(folder, command).open("w", encoding="utf-8") as log:
        started = [subprocess.Popen([*module, *group], stdout=log, stderr=subprocess.STDOUT) for group in GROUPS]
        return max([abs(process.wait()) for process in started])


def join(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of several summary.json files, by their keys: values, mean, least, greatest, standard deviation.

    A mean is over the seeds that have the figure; chance and what stands beside a figure are means too.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        for figure in summary["figures"]:
            rows.setdefault(figure["key"], []).append(figure)
    return [_joined(key, figures) for key, figures in rows.items()]


def _joined(key: str, figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [figure["value"] for figure in figures if figure["value"] is not None]
    names = dict.fromkeys(name for figure in figures for name in figure["beside"])
    return {
        "key": key,
        "name": figures[0]["name"],
        "values": [figure["value"] for figure in figures],
        "mean": _mean(values),
        "least": min(values, default=None),
        "greatest": max(values, default=None),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "chance": _mean([figure["chance"] for figure in figures]),
        "beside": {name: _mean([figure["beside"].get(name) for figure in figures]) for name in names},
        "open": [figure["open"] for figure in figures],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def main(words: Sequence[str] | None = None) -> int:
    """Run the seeds one after another; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m prior_fast.bench.demo.seeds", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="OUT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="S")
    parser.add_argument("--studies", type=int, default=4500, metavar="N")
    settings, rest = split_settings(sys.argv[1:] if words is None else words)
    args = parser.parse_args(rest)
    summaries, seconds = [], []
    for seed in args.seeds:
        folder = args.out / f"seed-{seed}"
        # One ceiling is enough: it takes as long as the training.
        with_ceiling = seed == args.seeds[0]
        seconds.append(run_commands(folder, commands(folder, seed, args.studies, settings, with_ceiling), run))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        summaries.append(summary)
        print("\n".join(summary["lines"]), flush=True)
    report = {
        "kind": KIND,
        "seeds": args.seeds,
        "studies": args.studies,
        "settings": settings,
        "figures": join(summaries),
        "seconds": {name: [each.get(name) for each in seconds] for name in seconds[0]},
        "machine": describe_machine(),
    }
    write_json(args.out / FILE, report)
    print(f"{FILE} is in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
