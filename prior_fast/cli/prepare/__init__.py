"""`prior-fast prepare`: makes a dataset from files. Each layout of files is a module that this command finds by itself.

Images with reports: `prior_fast/prepare/studies/layouts/`. Images with labels: `prior_fast/prepare/labelled/layouts/`.
"""

import argparse

from prior_fast.cli.parser import LateParser, examples
from prior_fast.cli.prepare import labelled, merge, studies
from prior_fast.cli.prepare.layout_parser import add_layouts
from prior_fast.prepare.labelled import layouts as labelled_layouts
from prior_fast.prepare.studies import layouts as study_layouts


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `prepare`."""
    prepare = subparsers.add_parser(
        "prepare",
        help="make a prepared dataset (X-rays with reports) or a labelled dataset",
        description="Make a prepared dataset (X-rays with reports) or a labelled dataset (X-rays with labels, boxes or "
        "masks): each X-ray is decoded and resized once, each sentence is tokenized once.",
        epilog=examples(
            "prior-fast prepare table --table studies.csv --images xrays --out prepared",
            "prior-fast prepare mimic --images phantom --out prepared",
        ),
    )
    layouts = prepare.add_subparsers(
        title="layouts", dest="layout", required=True, metavar="LAYOUT", parser_class=LateParser
    )
    add_layouts(layouts, study_layouts, studies.fill)
    merge.add_parser(layouts)
    add_layouts(layouts, labelled_layouts, labelled.fill)
