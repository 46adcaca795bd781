#!/usr/bin/env bash
# Measures the step of stage 3 with each setting that has not been measured on a GPU, beside the default:
#     bash bench/gpu/settings.sh OUT
# Takes nine minutes, most of them for compiling; all.sh does not run it. SETTINGS: other settings, separated by spaces;
# commas join those that belong together. OUT/settings.tgz holds a steps.json for each, with the time of each part.
. "$(dirname "$0")/common.sh"
begin settings 540 "$@"

NARROW=model.text.residual=bfloat16,model.sentence_decoder.residual=bfloat16
for setting in default ${SETTINGS:-optimizer_kernel=torch upsampled_conv=auto $NARROW model.bank.precision=tf32x3}; do
    words=${setting#default}
    # shellcheck disable=SC2086
    part "steps-$setting" 170 "$PYTHON" -m prior_fast.bench.gpu.steps --preset "$PRESET" --stage 3 --batch "$BATCH" \
        --out "$RESULTS/$setting" --profile "device=$DEVICE" ${words//,/ }
    last "steps-$setting.log" 1
done
finish
