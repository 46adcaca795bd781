#!/usr/bin/env bash
# Measures the gain of pre-training: the fine-tuned tasks with 1 % of the labels of made-up datasets, from a run of the
# preset tiny and from random weights, on three splits each.
#     bash bench/tasks.sh RUN OUT
# RUN: a run's folder. OUT gets the data, a folder for each task, and pretraining.json. After a stop, the same command
# resumes. Takes about half an hour on two cores.
set -eu
RUN=${1:?usage: bash bench/tasks.sh RUN OUT}
OUT=${2:?usage: bash bench/tasks.sh RUN OUT}
PRIOR_FAST=${PRIOR_FAST:-prior-fast}

# 1 % of 12,000 studies are 72 images for classification and 16 for segmentation or detection; of 4,000, 24 and 5.
for data in rsna:12000 siim:4000; do
    layout=${data%:*}
    if [ ! -d "$OUT/$layout-prepared" ]; then
        rm -rf "${OUT:?}/$layout"
        "$PRIOR_FAST" phantom --layout $layout --out "$OUT/$layout" --studies "${data#*:}" --size 256 --seed 11
        "$PRIOR_FAST" prepare $layout --images "$OUT/$layout" --out "$OUT/$layout-prepared"
    fi
done

# pair NAME TASK DATA key=value...: both runs at once, on one core each
pair() {
    local name=$1 task=$2 data=$3 weights jobs=""
    shift 3
    for weights in checkpoint random; do
        OMP_NUM_THREADS=1 "$PRIOR_FAST" evaluate "$task" --checkpoint "$RUN" --data "$OUT/$data-prepared" \
            --out "$OUT/$name-$weights" percent=1 weights=$weights normalization=pretraining "$@" &
        jobs="$jobs $!"
    done
    for job in $jobs; do wait "$job"; done
}

# For few images in small batches; the paper's learning rates are for a ResNet-50 and more steps.
prior=splits=prior-0,prior-1,prior-2 folds=splits=folds-0,folds-1,folds-2
classify="epochs=15 validate_every=5 batch_size=8 pool=attention"
segment="learning_rate=1e-3 epochs=100 validate_every=20 batch_size=4 decoder_channels=64,32,16,16,8"
detect="learning_rate=1e-3 epochs=50 validate_every=25 batch_size=4 pyramid_channels=64 head_width=128 proposals=64"
for data in rsna siim; do
    pair "classification-linear-$data" classification $data $classify learning_rate=1e-3 blocks=0 $prior
    pair "classification-full-$data" classification $data $classify learning_rate=3e-4 $prior
    pair "segmentation-$data" segmentation $data $segment $folds
done
pair detection-rsna detection rsna $detect $folds
"$PRIOR_FAST" bench pretraining "$OUT" --out "$OUT"
