"""The `prepare` command of a layout of images with reports: whole or in shards, or a dry run."""

import argparse
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from prior_fast.cli.parser import examples, pasted
from prior_fast.cli.prepare.shown import show
from prior_fast.cli.prepare.stopping import until_stopped

if TYPE_CHECKING:
    from prior_fast.prepare.studies.options import PrepareOptions


def fill(parser: argparse.ArgumentParser, name: str, module: ModuleType) -> None:
    """Complete the parser of a layout.

    Args:
        module: the layout: HELP, EXAMPLE, DEFAULTS, add_options and read (CONTRIBUTING.md).
    """
    command = f"prior-fast prepare {name} {module.EXAMPLE} --out prepared"
    parser.description = f"Prepare {module.HELP}.\nA stopped run resumes when the same command is given again."
    shards = [f"{command} --shard {number}/2" for number in (1, 2)]
    parser.epilog = "\n".join(
        [
            examples(command),
            "a dry run that shows what it understands:",
            f"  {pasted(f'{command} --check 5')}",
            "in 2 jobs, on any machines that share the folders, and then the merge:",
            *(f"  {pasted(each)}" for each in (*shards, "prior-fast prepare merge --out prepared")),
        ]
    )
    module.add_options(parser)
    _add_common(parser, module)
    parser.set_defaults(run=partial(run, name, module))


def _add_common(parser: argparse.ArgumentParser, module: ModuleType) -> None:
    from prior_fast.radiology.report import SECTION_RULES

    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the new dataset")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--strict", action="store_true", help="stop at the first missing or broken file, exit code 1")
    parser.add_argument(
        "--tokenizer",
        default="train",
        metavar="T",
        help="'train' for a vocabulary of the training reports (default), or a Hugging Face name or folder",
    )
    least = module.DEFAULTS["min_sentences"]
    parser.add_argument(
        "--min-sentences",
        type=int,
        default=least,
        metavar="N",
        help=f"leave out reports with fewer sentences (default: {least})",
    )
    parser.add_argument(
        "--sections",
        choices=SECTION_RULES,
        default=module.DEFAULTS["sections"],
        help="how findings and impression are found in a whole report: 'mimic', the published rules of MIMIC-CXR; "
        "'tolerant', headers of any form, English or Spanish, or none; 'whole', the whole text "
        f"(default: {module.DEFAULTS['sections']})",
    )
    parser.add_argument(
        "--decode",
        choices=("exact", "fast"),
        default="exact",
        help="fast: reduce JPEGs while decoding, which changes pixels slightly (default: exact)",
    )
    parser.add_argument(
        "--max-image-pixels",
        default="64M",
        metavar="N",
        help="leave out images with more pixels (default: 64M)",
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="prepare only part I of N (the first is 1/N); `prepare merge` joins the parts"
    )
    parser.add_argument(
        "--check", type=int, metavar="N", help="make nothing: show what was understood, and N studies in full"
    )


def run(name: str, module: ModuleType, args: argparse.Namespace) -> int:
    """Prepare the dataset, or a shard of it, and print what was kept and what was left out."""
    from prior_fast.prepare.studies.options import PrepareOptions
    from prior_fast.prepare.studies.pipeline import prepare_studies
    from prior_fast.prepare.studies.plan import Source, argument_names
    from prior_fast.prepare.studies.shards import Shard, prepare_shard
    from prior_fast.processes import usable_cores
    from prior_fast.radiology.limits import limited_pixels, parse_pixels

    options = PrepareOptions(
        source=Source(name, {argument: getattr(args, argument) for argument in argument_names(module)}),
        out=args.out,
        workers=usable_cores() if args.workers is None else args.workers,
        strict=args.strict,
        tokenizer=args.tokenizer,
        min_sentences=args.min_sentences,
        decode=args.decode,
        sections=args.sections,
    )
    with limited_pixels(parse_pixels(args.max_image_pixels)):
        if args.check is not None:
            return _check(options, args.check)
        if args.shard is None:
            return until_stopped(lambda: show(prepare_studies(options), args.out))
        shard = Shard.parse(args.shard)
        return until_stopped(lambda: show(prepare_shard(options, shard), args.out))


def _check(options: "PrepareOptions", count: int) -> int:
    """Print what a dry run understood."""
    from prior_fast.console import print_table, stderr, stdout
    from prior_fast.prepare.studies.check import check_source

    checked = check_source(options, count)
    print_table("Understood", ("what", "where"), checked.understood)
    for study in checked.studies:
        print_table(f"Study {study.name}", ("what", "value"), study.rows)
    for note in checked.notes:
        stderr.print(note)
    if checked.left_out:
        print_table("Left out because of the tables", ("reason", "studies", "files", "such as"), checked.left_out)
    stdout.print(f"{checked.total} studies could be prepared; nothing was written.")
    return 0
