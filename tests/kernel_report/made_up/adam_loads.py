"""Prints how wide the memory accesses of the optimizer's kernels are, from the code that they compile to."""

import json
import re
import sys
from collections import Counter

from prior_fast.kernel_report.collect import require_compiler

require_compiler()

from prior_fast.kernel_report.collect import collect  # noqa: E402
from prior_fast.kernel_report.compile import compile_triton  # noqa: E402
from prior_fast.kernels import adam  # noqa: E402

ACCESS = re.compile(r"\b(ld|st)\.global(?:\.\w+)*?((?:\.v[248])?)\.b(\d+)")
found = []
for version in collect("adam").versions:
    constants = dict(version.constants)
    if not constants.get("ALIGNED") or version.kernel == "_clip_factor_kernel":
        continue
    ptx = compile_triton(getattr(adam, version.kernel), version, sys.argv[1]).asm["ptx"]
    widths = Counter(int(vector[2:] or 1) * int(bits) for _, vector, bits in ACCESS.findall(ptx))
    rounded = len(re.findall(r"cvt\.rn\.bf16", ptx))
    dtype = str(constants["DTYPE"])
    found.append({"kernel": version.kernel, "dtype": dtype, "widths": widths, "rounded": rounded})
print(json.dumps(found))
