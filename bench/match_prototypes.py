"""Generated sentences matched to those of their reports, at PRIOR's batch size and eight times that."""

from collections.abc import Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, offsets, report_lengths, size
from prior_fast.ops import match_prototypes
from prior_fast.ops.match_prototypes import matching_cost

QUERIES, WIDTH = 16, 768


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The public function: costs and matching."""
    for reports in (128, 1024):
        lengths = report_lengths(reports)
        prediction = torch.randn(reports, QUERIES, WIDTH, device=device).to(dtype)
        target = torch.randn(sum(lengths), WIDTH, device=device).to(dtype)
        cu = offsets(lengths, device)
        run = partial(match_prototypes, prediction, target, cu)
        # A subtraction, an absolute value and an addition for each channel of each pair; one padding column per report.
        pairs = QUERIES * (sum(lengths) + reports)
        moved = size(prediction, target, cu) + reports * QUERIES * 8
        yield Case("match_prototypes", f"B={reports} Q={QUERIES} D={WIDTH}", "forward", run, moved, 3 * pairs * WIDTH)


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """A batch's generated sentences; bytes and operations as in `cases`."""
    for reports in dict.fromkeys((*batches(small), 128)):
        lengths = report_lengths(reports)
        prediction = torch.randn(reports, QUERIES, WIDTH, device=device).to(dtype)
        target = torch.randn(sum(lengths), WIDTH, device=device).to(dtype)
        cu = offsets(lengths, device)
        moved = size(prediction, target, cu) + reports * QUERIES * 8
        yield Public(
            "match_prototypes",
            f"B={reports} Q={QUERIES} S={sum(lengths)} D={WIDTH}",
            match_prototypes,
            (prediction, target, cu),
            Work(moved, 3 * QUERIES * (sum(lengths) + reports) * WIDTH),
            at=reports,
            judged=_totals,
            compiles=False,
        )


def _totals(match: torch.Tensor, prediction: torch.Tensor, target: torch.Tensor, cu: torch.Tensor) -> torch.Tensor:
    """The total cost of each report [B]. The last column stands for all padding columns, which have equal costs."""
    padding = prediction.double().abs().sum(2, keepdim=True)
    cost = torch.cat([matching_cost(prediction.double(), target.double(), cu), padding], dim=2)
    return cost.gather(2, torch.where(match < 0, QUERIES, match).unsqueeze(2)).sum((1, 2))
