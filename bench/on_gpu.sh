#!/usr/bin/env bash
# Everything that wants a GPU, in one run of about nine minutes, on a machine without the internet:
#     bash bench/on_gpu.sh OUT
# builds the libraries, runs the tests that use the GPU, the sanitizers on small shapes, all benchmarks, and the ladder of
# the paper preset at batch 128. OUT gets the JSON files, tables, plots and a log of each part; summary.txt says how each
# ended. A part that fails does not stop the others; the exit code is 1 if one did.
#     DEVICE=cpu PRESET=tiny BATCH=8 bash bench/on_gpu.sh OUT
# is a rehearsal without a GPU.
set -u
DEVICE=${DEVICE:-cuda} PRESET=${PRESET:-paper} BATCH=${BATCH:-128}
OUT=${1:?usage: bash bench/on_gpu.sh OUT}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
cd "$(dirname "$0")/.."
: > "$OUT/summary.txt"
failed=0

# part NAME SECONDS COMMAND...
part() {
    local name=$1 seconds=$2 began=$SECONDS code
    shift 2
    timeout "$seconds" "$@" > "$OUT/$name.log" 2>&1
    code=$?
    [ $code -eq 0 ] || failed=1
    echo "$name: exit $code after $((SECONDS - began)) s" | tee -a "$OUT/summary.txt"
}

prior_fast() { "$PYTHON" -m prior_fast.cli.main "$@"; }
export -f prior_fast
export PYTHON
run() { part "$1" "$2" bash -c 'prior_fast "$@"' prior-fast "${@:3}"; }

run build 120 build
run doctor 30 doctor --out "$OUT/doctor"
part tests 150 "$PYTHON" -m pytest -q -x tests/ops/test_devices.py tests/csrc tests/training/test_no_syncs.py

# The sanitizers come with the CUDA toolkit; a kernel takes some hundred times longer under them.
if [ "$DEVICE" = cuda ] && command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        part "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m pytest -q \
            tests/csrc/test_on_gpu.py -k "same_answers"
    done
else
    echo "memcheck, racecheck: compute-sanitizer is not on the PATH" | tee -a "$OUT/summary.txt"
fi

run kernels 100 bench kernels --device "$DEVICE" --out "$OUT/kernels"
run phantom 60 phantom --out "$OUT/phantom" --studies 400 --size 256
run prepare 30 prepare mimic --images "$OUT/phantom" --out "$OUT/prepared"
run loader 60 bench loader --data "$OUT/prepared" --device "$DEVICE" --batch "$BATCH" --seconds 3 --out "$OUT/loader"
for stage in 3 2 1; do
    run "ladder-$stage" 120 bench train --preset "$PRESET" --stage "$stage" --batch "$BATCH" --out "$OUT/ladder-$stage" \
        "device=$DEVICE"
done
run picture 30 bench picture --train "$OUT/ladder-3/train.json" --loader "$OUT/loader/loader.json" \
    --kernels "$OUT/kernels/kernels.json" --out "$OUT/speed.png"
rm -rf "$OUT/phantom" "$OUT/prepared"
exit $failed
