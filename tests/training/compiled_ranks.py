"""`prior-fast train` with a compiler that only traces; prints what it was given to compile."""

from collections.abc import Sequence

import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from prior_fast.cli.main import main


def traced(words: Sequence[str]) -> int:
    counter = CompileCounterWithBackend("aot_eager")
    compile_with = torch.compile
    torch.compile = lambda loss, **how: compile_with(loss, backend=counter, **how)  # type: ignore[assignment]
    code = main(words)
    # Dynamo counts a graph without a node too.
    graphs = sum(len(graph.graph.nodes) > 0 for graph in counter.graphs)
    print(f"graphs {graphs} breaks {len(counters['graph_break'])}")
    return code
