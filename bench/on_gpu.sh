#!/usr/bin/env bash
# Everything that wants a GPU, in one run of at most nine minutes, on a machine without the internet:
#     bash bench/on_gpu.sh OUT
# builds the libraries, runs the tests that use the GPU, all benchmarks, the ladder of the paper preset at batch 128, a
# second start, and the sanitizers on small shapes. OUT gets the JSON files, tables, plots and a log of each part;
# summary.txt says how each ended. A part that fails does not stop the others, and what the time does not suffice for
# comes last; the exit code is 1 if a part failed or was left out.
#     DEVICE=cpu PRESET=tiny BATCH=8 bash bench/on_gpu.sh OUT
# is a rehearsal without a GPU. BUDGET: seconds for all parts together.
set -u
DEVICE=${DEVICE:-cuda} PRESET=${PRESET:-paper} BATCH=${BATCH:-128} BUDGET=${BUDGET:-530}
OUT=${1:?usage: bash bench/on_gpu.sh OUT}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
cd "$(dirname "$0")/.."
: > "$OUT/summary.txt"
failed=0
LEAST=5 # seconds that are worth starting something for

say() { echo "$1" | tee -a "$OUT/summary.txt"; }

# part NAME SECONDS COMMAND...: within SECONDS, and within what is left of the budget
part() {
    local name=$1 limit=$2 left=$((BUDGET - SECONDS)) began=$SECONDS code
    shift 2
    if [ $left -lt $LEAST ]; then
        say "$name: left out, the time is used up"
        failed=1
        return
    fi
    timeout --kill-after 5 $((left < limit ? left : limit)) "$@" > "$OUT/$name.log" 2>&1
    code=$?
    [ $code -eq 0 ] || failed=1
    say "$name: exit $code after $((SECONDS - began)) s"
}

prior_fast() { "$PYTHON" -m prior_fast.cli.main "$@"; }
export -f prior_fast
export PYTHON
run() { part "$1" "$2" bash -c 'prior_fast "$@"' prior-fast "${@:3}"; }

# ladder NAME SECONDS STAGE RUNGS STEPS
ladder() {
    run "$1" "$2" bench train --preset "$PRESET" --stage "$3" --batch "$BATCH" --rungs "$4" --steps "$5" --out "$OUT/$1" \
        "device=$DEVICE"
}

run build 120 build
run doctor 30 doctor --out "$OUT/doctor"
# (e) compiles a step that no training uses: it comes last.
ladder ladder-3 200 3 abcdf 20
part tests 200 "$PYTHON" -m pytest -q tests/ops/test_devices.py tests/csrc tests/training/test_no_syncs.py \
    tests/model/test_text_encoder.py
run kernels 120 bench kernels --device "$DEVICE" --out "$OUT/kernels"
run phantom 60 phantom --out "$OUT/phantom" --studies 400 --size 256
run prepare 30 prepare mimic --images "$OUT/phantom" --out "$OUT/prepared"
run loader 60 bench loader --data "$OUT/prepared" --device "$DEVICE" --batch "$BATCH" --seconds 3 --out "$OUT/loader"
run picture 30 bench picture --train "$OUT/ladder-3/train.json" --loader "$OUT/loader/loader.json" \
    --kernels "$OUT/kernels/kernels.json" --out "$OUT/speed.png"
# What ladder-3 compiled is in torch.compile's cache: warm_up_seconds of (f) are those of a second start.
ladder second-start 90 3 af 2
ladder ladder-2 120 2 adf 10
ladder ladder-1 120 1 adf 10
if [ "$DEVICE" = cuda ]; then
    ladder ladder-3-compiled 150 3 aef 10
fi

# The sanitizers come with the CUDA toolkit; a kernel takes some hundred times longer under them.
if [ "$DEVICE" = cuda ] && command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        part "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m pytest -q \
            tests/csrc/test_on_gpu.py -k "same_answers"
    done
else
    say "memcheck, racecheck: compute-sanitizer is not on the PATH"
fi
rm -rf "$OUT/phantom" "$OUT/prepared"
exit $failed
