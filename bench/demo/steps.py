"""Compares the demo's steps with those of an older revision, alone and beside a busy neighbour:

    git archive REVISION prior_fast csrc kernels bench | tar x -C OLD
    (cd OLD && PYTHONPATH=$PWD python -m prior_fast.cli.main build)
    python -m prior_fast.bench.demo.steps --data demo/prepared --before OLD --out demo-steps.json

Each tree trains the preset `tiny` for a few steps of each stage, with batches of 64 as the older default had. The trees
take turns, so that a change of the machine's speed meets both. The neighbour is a process that computes without end. A
row has the seconds of a step in each round: the median of the log's windows without the first.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import prior_fast
from prior_fast.files import write_json
from prior_fast.hardware.machine import describe_machine

KIND = "demo-steps"
WINDOW = 4  # steps of a row of the log
BATCH = 64
Train = Callable[[Path, Path, Path, int], None]


def train(tree: Path, data: Path, out: Path, steps: int) -> None:
    """Train `tiny` with the package in `tree`.

    Raises:
        SystemExit: the training failed; has its output.
    """
    words = [f"batch_size={BATCH}", f"max_steps_per_stage={steps}", f"log_every={WINDOW}"]
    command = [sys.executable, "-m", "prior_fast.cli.main", "train", "--preset", "tiny", "--data", str(data.resolve())]
    done = subprocess.run(
        [*command, "--out", str(out), *words],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree.resolve())},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"training with {tree} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def seconds_of_steps(log: Path) -> dict[str, float]:
    """The seconds of a step of each stage, by its number: the median of the windows after the first."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    stages: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == "train":
            stages.setdefault(str(row["stage"]), []).append(BATCH / row["pairs_per_second"])
    return {stage: median(windows[1:] or windows) for stage, windows in stages.items()}


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A process that keeps a core busy, if `busy`."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def measure(trees: dict[str, Path], data: Path, steps: int, rounds: int, run: Train = train) -> list[dict[str, Any]]:
    """A row for each neighbour, stage and tree: the seconds of a step in each round."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for place in ("alone", "busy"):
        for _ in range(rounds):
            for name, tree in trees.items():
                with neighbour(place == "busy"), tempfile.TemporaryDirectory() as folder:
                    out = Path(folder) / "run"
                    run(tree, data, out, steps)
                    for stage, seconds in seconds_of_steps(out / "log.jsonl").items():
                        found.setdefault((place, stage, name), []).append(round(seconds, 4))
    return [{"beside": b, "stage": int(s), "tree": name, "seconds": v} for (b, s, name), v in found.items()]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and write the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m prior_fast.bench.demo.steps", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="a prepared dataset")
    parser.add_argument("--before", type=Path, required=True, metavar="OLD", help="a folder with the older package")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=24, metavar="N", help="of each stage (24)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each tree and neighbour (3)")
    args = parser.parse_args(words)
    for name, least in (("steps", 2 * WINDOW), ("rounds", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} is {getattr(args, name)}: give {least} or more")
    if not (args.before / "prior_fast").is_dir():
        parser.error(f"--before {args.before} has no folder prior_fast: unpack an older revision there")
    with tempfile.TemporaryDirectory() as folder:
        # A copy, since a run takes a while and the checkout may change meanwhile.
        now = Path(folder)
        shutil.copytree(Path(prior_fast.__file__).parent, now / "prior_fast")
        rows = measure({"before": args.before, "now": now}, args.data, args.steps, args.rounds)
    report = {"kind": KIND, "batch_size": BATCH, "steps": args.steps, "rows": rows, "machine": describe_machine()}
    write_json(args.out, report)
    print(f"{args.out} has the seconds of {len(rows)} kinds of steps")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
