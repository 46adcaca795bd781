"""`prior-fast phantom`: a made-up dataset in the layout of a public one."""

import argparse
from pathlib import Path
from typing import Any

from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `phantom`."""
    parser = subparsers.add_parser(
        "phantom",
        help="make up a dataset of chest X-rays and reports",
        description="Draw made-up chest X-rays with findings, and write reports, labels, masks and boxes that agree "
        "with them, in MIMIC-CXR-JPG's layout or in that of a dataset with labels, boxes or masks. The same seed gives "
        "the same files; more studies only add to them.",
        epilog=examples(
            "prior-fast phantom --out phantom --studies 2000 --seed 1",
            "prior-fast phantom --layout chexpert --out made-up-chexpert",
        ),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the new dataset")
    parser.add_argument(
        "--layout",
        choices=("mimic", "chexpert", "rsna", "siim"),
        default="mimic",
        help="the public dataset whose folders, tables and file formats are used (default: mimic)",
    )
    parser.add_argument("--studies", type=int, default=1000, metavar="N", help="number of studies (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the dataset (default: 0)")
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="the images' longer side (default: 512; 390 for chexpert, 1024 for rsna and siim, which are square)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the dataset and print what is in it."""
    from prior_fast.cli.prepare.stopping import until_stopped
    from prior_fast.phantom.generate import PhantomOptions, generate_dataset
    from prior_fast.processes import usable_cores

    workers = usable_cores() if args.workers is None else args.workers
    if args.layout == "mimic":
        size = PhantomOptions.size if args.size is None else args.size
        options = PhantomOptions(args.out, args.studies, args.seed, size, workers)
        return until_stopped(lambda: _show(generate_dataset(options), args.out))
    from prior_fast.phantom.layouts.labelled import default_size, generate_layout

    size = default_size(args.layout) if args.size is None else args.size
    options = PhantomOptions(args.out, args.studies, args.seed, size, workers)
    return until_stopped(lambda: _show_layout(generate_layout(options, args.layout), args.out))


def _show(report: dict[str, Any], out: Path) -> None:
    from prior_fast.console import print_table, stdout

    columns = ("studies", "images", "frontal_images", "sentences")
    rows = [(split, *(counts.get(name, 0) for name in columns)) for split, counts in report["splits"].items()]
    print_table("Made up", ("split", "studies", "images", "frontal", "sentences"), rows)
    alone = report["only_one_of_five"]
    findings = [(name, *counts.values(), alone["test"].get(name, "")) for name, counts in report["labels"].items()]
    header = ("label", "positive", "negative", "uncertain", "blank", "test, alone")
    print_table("Labels by study", header, findings)
    stdout.print(f"{out}: {report['studies']} studies in {report['seconds']} s with {report['workers']} workers.")


def _show_layout(report: dict[str, Any], out: Path) -> None:
    from prior_fast.console import print_table, stdout

    shown = [
        name for name, value in report.items() if isinstance(value, int) and name not in ("seed", "size", "workers")
    ]
    print_table("Made up", shown, [[report[name] for name in shown]])
    if "labels" in report:
        header = ("label", "positive", "negative", "uncertain", "blank")
        print_table("Labels by image", header, [(name, *counts.values()) for name, counts in report["labels"].items()])
    stdout.print(f"{out}: {report['studies']} studies in {report['seconds']} s with {report['workers']} workers.")
