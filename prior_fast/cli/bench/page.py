"""`prior-fast bench page`: fills the tables of Markdown pages from result files."""

import argparse
from pathlib import Path

from prior_fast.cli.inputs import look_at_file
from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `page`."""
    parser = subparsers.add_parser(
        "page",
        help="fill the tables of Markdown pages from result files and from the config",
        description="Replace every table of the pages between the lines <!-- table KIND FILE --> and "
        "<!-- end of table -->. KIND is train, loader, loader-parts, ops, limits, competitors, slower, "
        "memory, pretraining, demo-seeds, demo-seconds, demo-defects, demo-planted, demo-steps, steps, parts, predict "
        "or machine; FILE is a result file below the folder of results. "
        "<!-- table settings GROUP --> is made from the config: GROUP is run, model, model.image, model.text, "
        "model.bank, model.sentence_decoder, loss or data. <!-- table task-settings TASK --> has the settings of a "
        "task of `prior-fast evaluate`.",
        epilog=examples(
            "prior-fast bench page docs/performance.md --results bench/results",
            "prior-fast bench page docs/configuration.md --check",
        ),
    )
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE.md", help="pages whose tables are filled")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("bench/results"),
        metavar="DIR",
        help="folder of the result files (default: bench/results)",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page would change")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    for page in args.pages:
        look_at_file(page, "page")
    from prior_fast.console import busy, stdout

    with busy("loading PyTorch"):
        from prior_fast.measure.page.fill import fill_pages

    changed = fill_pages(args.pages, args.results, args.check)
    stdout.print(f"{len(changed)} of {len(args.pages)} pages changed")
    return 0
