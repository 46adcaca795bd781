"""Generated sentences matched to those of their reports, at PRIOR's size and eight times that."""

from collections.abc import Iterator
from functools import partial

import torch

from prior_fast.bench._case import Case, offsets, report_lengths, size
from prior_fast.ops import match_prototypes

QUERIES, WIDTH = 16, 768


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The public function: costs and matching."""
    for reports in (128, 1024):
        lengths = report_lengths(reports)
        prediction = torch.randn(reports, QUERIES, WIDTH, device=device).to(dtype)
        target = torch.randn(sum(lengths), WIDTH, device=device).to(dtype)
        cu = offsets(lengths, device)
        run = partial(match_prototypes, prediction, target, cu)
        # A subtraction, an absolute value and an addition for each channel of each pair; one padding column a report.
        pairs = QUERIES * (sum(lengths) + reports)
        moved = size(prediction, target, cu) + reports * QUERIES * 8
        yield Case("match_prototypes", f"B={reports} Q={QUERIES} D={WIDTH}", "forward", run, moved, 3 * pairs * WIDTH)
