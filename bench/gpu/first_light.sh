#!/usr/bin/env bash
# Checks the results on this GPU and times a step. Takes seven minutes:
#     bash bench/gpu/first_light.sh OUT
# OUT/first-light.tgz holds a log of each part, the profile of an uncompiled step, and the logs of two short runs.
. "$(dirname "$0")/common.sh"
begin first-light 420 "$@"

[ "$DEVICE" != cuda ] || part nvidia-smi 10 nvidia-smi
prior_fast build 60 build # builds only what is out of date
prior_fast doctor 30 doctor --out "$RESULTS/doctor"
part tests 120 "$PYTHON" -m pytest -n "${TEST_PROCESSES:-6}" -m "(gpu or device) and not compiles" -p no:cacheprovider \
    tests/ops/test_devices.py tests/csrc/test_on_gpu.py tests/model/test_text_encoder.py tests/training/test_no_syncs.py
data
train uncompiled 60 20 compile=off profile=true
train compiled 200 60

last tests.log 8
first uncompiled/profile/stage-3.txt 12
last uncompiled.log 3
last compiled.log 3
finish
