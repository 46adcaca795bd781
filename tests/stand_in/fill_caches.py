"""Compiles a step of each stage without a GPU, so that a GPU machine finds the code in the compilers' caches.

    python tests/stand_in/fill_caches.py BATCH STAGE ...

Runs in the environment that `python tests/stand_in/library.py FOLDER` prints, with the caches' folders in
TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR. It compiles the last rung of `prior-fast bench train` at the paper's
widths; `prior-fast train` on a prepared dataset has another vocabulary, and so another graph.
"""

import sys
import time

import stand_in_here  # noqa: F401
import torch
from convolutions import skip_convolutions

from prior_fast.measure.ladder.bench_ladder import SEED, Options, make_batches, make_config
from prior_fast.measure.ladder.rungs import LADDER, RungStep
from prior_fast.model.prior import PRIORModel
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.stages import StepContext


def main(batch: str, *stages: str) -> None:
    skipped = skip_convolutions()  # noqa: F841 kept alive
    options = Options(batch=int(batch))
    config = make_config(options)
    batches, vocabulary = make_batches(options, config, 2)
    model = PRIORModel(config.model, vocabulary)
    for stage in map(int, stages):
        began = time.perf_counter()
        step = RungStep(LADDER[-1], model, stage, config, torch.device("cuda", 0))
        assert step.compiled
        with cudnn_for_training(config.cudnn_benchmark):
            for some in batches:
                step.step(some.to("cuda"), StepContext(config.model.bank.tau_start, SEED))
        print(f"stage {stage}: compiled in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
