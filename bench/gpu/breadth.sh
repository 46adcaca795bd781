#!/usr/bin/env bash
# Measures the ops, the loader and the other stages, and runs the sanitizers. Takes eight minutes:
#     bash bench/gpu/breadth.sh OUT
# OUT/breadth.tgz holds kernels.json with all ops that were measured in time, loader.json, the steps of stages 1 and 2,
# and the sanitizers' logs.
. "$(dirname "$0")/common.sh"
begin breadth 480 "$@"

# kernels SECONDS OP...: each op in its own process; all share one result file
kernels() {
    local limit=$1 op
    shift
    for op in "$@"; do
        prior_fast "kernels-$op" "$limit" bench kernels --op "$op" --device "$DEVICE" --limit $((limit - 5)) \
            --out "$RESULTS/kernels"
    done
}

kernels 35 sigmoid_attention prototype_lookup prototype_kl match_prototypes info_nce linear_sum_assignment
data
prior_fast loader 30 bench loader --data "$WORK/prepared" --device "$DEVICE" --batch "$BATCH" --seconds 2 \
    --out "$RESULTS/loader"
steps 1 120
steps 2 120
# The sanitizers are part of the CUDA toolkit.
if [ "$DEVICE" = cuda ] && command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        part "$tool" 50 compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m prior_fast.bench.gpu.sanitize
    done
else
    say "memcheck, racecheck: compute-sanitizer is not on the PATH"
fi
kernels 20 packed_self_attention packed_attention dropout_add_layer_norm segment_info_nce segment_softmax_pool \
    segment_mean attention_weights rotate_images upsampled_conv

last kernels-sigmoid_attention.log 16
last loader.log 10
last steps-1.log 1
last steps-2.log 1
finish
