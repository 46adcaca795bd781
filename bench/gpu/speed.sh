#!/usr/bin/env bash
# Where does the time of a stage-3 step go? Nine minutes:
#     bash bench/gpu/speed.sh OUT
# OUT/speed.tgz holds the profile of a compiled run, its step's time by parts, each convolution by itself, plain PyTorch
# beside what training does, and a run with cuDNN's own choice of algorithms.
. "$(dirname "$0")/common.sh"
begin speed 540 "$@"

data
train timed 200 40 cudnn_benchmark=true profile=true
steps 3 200 --profile
prior_fast convolutions 70 bench convolutions --preset "$PRESET" --batch "$BATCH" --device "$DEVICE" \
    --limit 60 --seconds 0.1 --out "$RESULTS/convolutions"
# (a) alone takes 100 s on an H200, its checks included.
ladder ladder-3 200 3 af 6
train as-chosen 100 40 cudnn_benchmark=false

first timed/profile/stage-3.txt 41
last convolutions.log 24
last as-chosen.log 2
last timed.log 2
last steps-3.log 1
last ladder-3.log 16
finish
