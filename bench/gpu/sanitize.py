"""Ten small problems for the CUDA kernels, to be run under compute-sanitizer, which slows a kernel down some hundred
times:

    compute-sanitizer --tool memcheck python -m prior_fast.bench.gpu.sanitize

Each answer is compared with that of the CPU library, which takes the same steps. Exit code 1 if an answer differs, or
if there is nothing to run.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from prior_fast import extension, ops

# Sizes around each change of kernel: up to 32, 64 and 128 columns for a warp, more for a block.
ASSIGNMENTS = ((16, 16), (1, 1), (31, 33), (20, 64), (65, 65), (128, 128), (40, 300))
# Queries and width; 40 queries take two iterations of a block's threads.
MATCHINGS = ((16, 768), (5, 33), (40, 64))


def cases(device: torch.device) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Each problem's name, and a check that `device` solves it as the CPU does."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ASSIGNMENTS:
        cost = torch.rand(2, rows, columns, generator=generator)
        cost[1] = (4 * cost[1]).round()  # with ties
        yield f"assignment {rows}x{columns}", partial(assigns_alike, cost, device)
    for queries, width in MATCHINGS:
        lengths = torch.tensor([queries, 1, 0, queries // 2])
        prediction = torch.randn(len(lengths), queries, width, generator=generator)
        target = torch.randn(int(lengths.sum()), width, generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).int()
        yield f"matching {queries}x{width}", partial(matches_alike, prediction, target, offsets, device)


def assigns_alike(cost: Tensor, device: torch.device) -> bool:
    """Whether all columns are equal; ties are broken in the same way."""
    found = ops.linear_sum_assignment(cost.to(device), backend=backend_of(device)).cpu()
    return torch.equal(found, ops.linear_sum_assignment(cost, backend="cpp"))


def matches_alike(prediction: Tensor, target: Tensor, offsets: Tensor, device: torch.device) -> bool:
    """Whether all sentences are equal; sums in another order could only change the choice between equal totals."""
    there = (x.to(device) for x in (prediction, target, offsets))
    found = ops.match_prototypes(*there, backend=backend_of(device)).cpu()
    return torch.equal(found, ops.match_prototypes(prediction, target, offsets, backend="cpp"))


def backend_of(device: torch.device) -> str:
    """The compiled library for `device`."""
    return "cuda" if device.type == "cuda" else "cpp"


def run(device: torch.device) -> int:
    """Solve all problems and print which answers differ; returns the exit code."""
    names = {"cuda", "cpu"} if device.type == "cuda" else {"cpu"}
    for kind in sorted(names):
        reason = extension.unavailable(kind)
        if reason:
            print(f"nothing to run: {reason}", file=sys.stderr)
            return 1
    wrong = [name for name, alike in cases(device) if not alike()]
    for name in wrong:
        print(f"{name}: the answer differs from the CPU's", file=sys.stderr)
    print(f"{len(ASSIGNMENTS) + len(MATCHINGS) - len(wrong)} of {len(ASSIGNMENTS) + len(MATCHINGS)} answers are right")
    return 1 if wrong else 0


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("nothing to run: torch finds no GPU here")
    sys.exit(run(torch.device("cuda")))
