"""Trains and evaluates the preset tiny with planted defects, to show which figures of the demo notice them:

    python -m prior_fast.bench.demo.defects --data PREPARED --out OUT [--defects NAME ...] [--jobs 2] [key=value ...]

key=value: settings of the training. Each defect has a folder in OUT and a process of one thread; --jobs says how many
run at once. OUT/demo-defects.json has the figures of all of them. The same command goes on after a stop.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prior_fast.bench.demo.commands import Command, evaluations, run_commands, split_settings
from prior_fast.bench.demo.prompts import write_prompts
from prior_fast.files import write_json
from prior_fast.hardware.machine import describe_machine

KIND, FILE = "demo-defects", "demo-defects.json"


def folder_of(out: Path, name: str) -> Path:
    """The folder of a defect's results."""
    return out / name.replace(" ", "-").replace("=", "-")


def commands(folder: Path, data: Path, words: Sequence[str]) -> list[Command]:
    """Training, evaluations and summary."""
    run = folder / "run"
    # Further processes of a run would be without the planted defect.
    train = ("train", "--preset", "tiny", "--data", str(data), "--out", str(run), "processes=1", *words)
    return [
        Command("train", train, run),
        *evaluations(folder, data, ["pictures=false"]),
        Command("bench demo", ("bench", "demo", str(folder)), folder / "summary.json"),
    ]


def run_defect(name: str, data: Path, out: Path, words: Sequence[str]) -> dict[str, float]:
    """Plant a defect in this process, then train and evaluate; the seconds of each command."""
    from prior_fast.bench.demo.plants import DEFECTS
    from prior_fast.cli.main import main as prior_fast

    defect = DEFECTS[name]
    defect.plant()

    def run(folder: Path, command: Command) -> int:
        return prior_fast(command.words)

    folder = folder_of(out, name)
    write_prompts(folder)
    return run_commands(folder, commands(folder, data, [*defect.settings, *words]), run)


def collect(out: Path, names: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    """The figures of finished defects."""
    from prior_fast.bench.demo.plants import DEFECTS

    rows = []
    for name in names:
        folder = folder_of(out, name)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        figures = {
            figure["key"]: {key: figure[key] for key in ("name", "value", "chance", "open")}
            for figure in summary["figures"]
        }
        rows.append({"name": name, "what": DEFECTS[name].what, "figures": figures})
    data = json.loads((folder_of(out, names[0]) / "zero-shot/metrics.json").read_text(encoding="utf-8"))["data"]
    machine = {**describe_machine(), "threads": 1}  # of each process
    return {"kind": KIND, "settings": list(words), "data": data, "defects": rows, "machine": machine}


def main(words: Sequence[str] | None = None) -> int:
    """Run the defects; returns the exit code."""
    from prior_fast.bench.demo.plants import DEFECTS

    parser = argparse.ArgumentParser(prog="python -m prior_fast.bench.demo.defects", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="PREPARED")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT")
    parser.add_argument("--defects", nargs="+", choices=DEFECTS, default=list(DEFECTS), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, metavar="N")
    parser.add_argument("--here", action="store_true", help="run them in this process, which its own processes do")
    settings, rest = split_settings(sys.argv[1:] if words is None else words)
    args = parser.parse_args(rest)
    if args.here:
        for name in args.defects:
            run_defect(name, args.data, args.out, settings)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)

    def start(name: str) -> int:
        own = ["--data", str(args.data), "--out", str(args.out), "--here", *settings, "--defects", name]
        log = folder_of(args.out, name).with_suffix(".log")
        with log.open("w", encoding="utf-8") as file:
            command = [sys.executable, "-m", "prior_fast.bench.demo.defects", *own]
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
            ).returncode
        print(f"{name}: {'done' if code == 0 else f'failed with exit code {code}: see {log}'}", flush=True)
        return code

    with ThreadPoolExecutor(args.jobs) as pool:
        failed = any(list(pool.map(start, args.defects)))
    if failed:
        return 1
    write_json(args.out / FILE, collect(args.out, args.defects, settings))
    print(f"{FILE} is in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
