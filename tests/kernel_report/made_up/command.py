"""The command `prior-fast`, with the made-up kernels of this folder in addition to its own."""

import sys
from pathlib import Path

import prior_fast.bench
import prior_fast.kernels
from prior_fast.cli.main import main

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    for package in (prior_fast.bench, prior_fast.kernels):
        package.__path__.append(str(HERE / package.__name__.removeprefix("prior_fast.")))
    sys.exit(main())
