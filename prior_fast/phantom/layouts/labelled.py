"""The phantom in the layouts of the labelled datasets."""

import importlib
import time
from functools import partial
from typing import Any

from prior_fast.files import write_json
from prior_fast.phantom.generate import PhantomOptions, check_options, draw, new_dataset

LAYOUTS = ("chexpert", "rsna", "siim")


def default_size(layout: str) -> int:
    """The longer side of the layout's original images, in pixels."""
    return _module(layout).SIZE


def generate_layout(options: PhantomOptions, layout: str) -> dict[str, Any]:
    """Write a made-up dataset in one of `LAYOUTS` into `options.out`, whole or not at all.

    The drawings are those of MIMIC-CXR-JPG's layout with the same seed; "rsna" and "siim" have one frontal image of
    each study. Study i depends only on the seed, the size and i.

    Returns:
        The content of report.json: options, counts, seconds.

    Raises:
        UsageError: an option is out of range, or `out` is a file or a folder that is not empty.
        RunError: a worker process died, the disk is full, or another process writes there.
        Interrupted: Ctrl-C.
    """
    check_options(options)
    start, module = time.perf_counter(), _module(layout)
    chosen = module.choose_studies(options.seed, options.studies)
    with new_dataset(options) as root:
        for folder in module.FOLDERS:
            (root / folder).mkdir()
        make = partial(module.write_study, root=root, seed=options.seed, size=options.size)
        studies = draw(make, chosen, root, options)
        module.write_tables(root, studies)
        report = {
            "layout": layout,
            "seed": options.seed,
            "size": options.size,
            "workers": options.workers,
            "studies": len(studies),
            **module.summarize(studies),
            "seconds": round(time.perf_counter() - start, 2),
        }
        write_json(root / "report.json", report)
    return report


def _module(layout: str) -> Any:
    # Each layout is a module with the same functions. Only RSNA's and SIIM-ACR's import pydicom.
    return importlib.import_module(f"prior_fast.phantom.layouts.{layout}")
