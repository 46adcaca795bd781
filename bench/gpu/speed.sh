#!/usr/bin/env bash
# Where does the time of a stage-3 step go? Nine minutes:
#     bash bench/gpu/speed.sh OUT
# OUT/speed.tgz holds two compiled runs, with cuDNN's own choice of algorithms and with the fastest of them, the profile
# of the second, each convolution by itself, and the ladder from plain PyTorch on.
. "$(dirname "$0")/common.sh"
begin speed 540 "$@"

data
train as-chosen 200 40 cudnn_benchmark=false
train timed 120 40 cudnn_benchmark=true profile=true
prior_fast convolutions 70 bench convolutions --preset "$PRESET" --batch "$BATCH" --device "$DEVICE" \
    --limit 60 --seconds 0.1 --out "$RESULTS/convolutions"
# (e) compiles a step that no training uses.
ladder ladder-3 240 3 abcdf 20

first timed/profile/stage-3.txt 41
last convolutions.log 24
last as-chosen.log 2
last timed.log 2
last ladder-3.log 16
finish
