#!/usr/bin/env bash
# Prepares files for a GPU machine without internet access, to save time there:
#     PYTHON=... bash bench/gpu/pack.sh
# It makes prior_fast/_C, the solver for sm_80 and sm_90, and runs/carry/caches.tar.xz, the code that torch.compile and
# Triton generate for the steps on an H200. It needs no GPU: it builds a stand-in for CUDA. PYTHON must have exactly the
# versions of torch and Triton of the GPU machine, since caches of other versions are not used. A wheel that is missing
# there may be put beside the caches. Copy both to the same places on the GPU machine; bench/gpu/*.sh unpack them. It
# takes a quarter of an hour on two cores.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3} BATCH=${BATCH:-128} PRESET=${PRESET:-paper} STAGES=${STAGES:-3 1 2}
CARRY=${CARRY:-runs/carry} WORK=${WORK:-runs/pack}
mkdir -p "$CARRY" "$WORK"
CARRY=$(cd "$CARRY" && pwd) WORK=$(cd "$WORK" && pwd)
rm -rf "$WORK"
mkdir "$WORK"
"$PYTHON" -c "import torch, triton; print(f'torch {torch.__version__}, Triton {triton.__version__}')"
"$PYTHON" -m prior_fast.cli.main build

# The same data as in bench/gpu/common.sh, since its vocabulary is part of the compiled code.
"$PYTHON" -m prior_fast.cli.main phantom --out "$WORK/phantom" --studies "${STUDIES:-1000}" --size 256
"$PYTHON" -m prior_fast.cli.main prepare mimic --images "$WORK/phantom" --out "$WORK/prepared"

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
set_here=$("$PYTHON" tests/stand_in/library.py "$WORK/stand-in")
(
    eval "$set_here"
    export TORCHINDUCTOR_CACHE_DIR=$WORK/inductor TRITON_CACHE_DIR=$WORK/triton TORCHINDUCTOR_SHAPE_PADDING=0
    "$PYTHON" -c "
import sys, stand_in_here
from convolutions import skip_convolutions
from prior_fast.cli.main import main
skipped = skip_convolutions()
sys.exit(main(sys.argv[1:]))" train --preset "$PRESET" --data "$WORK/prepared" --out "$WORK/run" device=cuda \
        "batch_size=$BATCH" stage_epochs=0,0,1000 max_steps_per_stage=2 compile=on \
        model.image.weights=random model.text.weights=random
    # shellcheck disable=SC2086
    [ "$PRESET" != paper ] || "$PYTHON" tests/stand_in/fill_caches.py "$BATCH" $STAGES
)
# Delete the results of autotuning, which are meaningless because the stand-in runs nothing.
find "$WORK/inductor" -name '*.best_config' -delete
(cd "$WORK" && "$PYTHON" -m tarfile -c "$CARRY/caches.tar.xz" inductor triton)
rm -rf "$WORK"
du -sh prior_fast/_C "$CARRY"
