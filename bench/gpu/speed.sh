#!/usr/bin/env bash
# Measures where the time of a stage-3 step goes. Takes nine minutes:
#     bash bench/gpu/speed.sh OUT
# OUT/speed.tgz holds the profile of a compiled run, its step's time by parts, the time of each convolution, the time of
# plain PyTorch and of training, and a run with cuDNN's default choice of algorithms.
. "$(dirname "$0")/common.sh"
begin speed 540 "$@"

data
train timed 200 40 cudnn_benchmark=true profile=true
steps 3 200 --profile
prior_fast convolutions 70 bench convolutions --preset "$PRESET" --batch "$BATCH" --device "$DEVICE" \
    --limit 60 --seconds 0.1 --out "$RESULTS/convolutions"
# Rung (a) takes 100 s on an H200, including its checks.
ladder ladder-3 200 3 af 6
train as-chosen 100 40 cudnn_benchmark=false

first timed/profile/stage-3.txt 41
last convolutions.log 24
last as-chosen.log 2
last timed.log 2
last steps-3.log 1
last ladder-3.log 16
finish
