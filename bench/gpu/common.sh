# Sourced by the scripts of this folder. A script runs parts, each with a time limit, and packs its folder of results
# into one archive.
#
# PYTHON: the interpreter. DEVICE, PRESET, BATCH: what is measured. WORK: folder of data, caches and results, kept for
# the next script. CARRY: files packed on another machine (pack.sh). BUDGET: seconds for all parts of a script together.
set -u
FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} PRESET=${PRESET:-paper} BATCH=${BATCH:-128}
WORK=${WORK:-runs/gpu} CARRY=${CARRY:-runs/carry}
LEAST=5    # seconds that must be left to start a part
LARGEST=8M # size limit of a file in the archive

# begin NAME BUDGET OUT: results go to WORK/NAME, and their archive is OUT/NAME.tgz
begin() {
    NAME=$1 BUDGET=${BUDGET:-$2} OUT=${3:-${OUT:-}}
    [ -n "$OUT" ] || { echo "usage: bash $0 OUT" >&2; exit 2; }
    SECONDS=0 failed=0 child=
    OUT=$(cd "$FROM" && mkdir -p "$OUT" && cd "$OUT" && pwd)
    mkdir -p "$WORK"
    WORK=$(cd "$WORK" && pwd) RESULTS=$WORK/$NAME
    rm -rf "$RESULTS"
    mkdir -p "$RESULTS"
    export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$WORK/inductor TRITON_CACHE_DIR=$WORK/triton
    # As in pack.sh: shape padding times matrix products, which is not possible without a GPU.
    export TORCHINDUCTOR_SHAPE_PADDING=0
    if [ -d "$CARRY" ]; then
        [ -f "$WORK/unpacked" ] || { unpack && touch "$WORK/unpacked"; } || say "carried: could not be unpacked"
        [ ! -d "$WORK/site" ] || export PYTHONPATH=$WORK/site${PYTHONPATH:+:$PYTHONPATH}
    fi
    trap stop TERM INT
    trap pack EXIT
}

unpack() {
    local wheels
    wheels=$(find "$CARRY" -name '*.whl')
    [ ! -f "$CARRY/caches.tar.xz" ] || "$PYTHON" -m tarfile -e "$CARRY/caches.tar.xz" "$WORK" || return
    # shellcheck disable=SC2086
    [ -z "$wheels" ] || "$PYTHON" -m pip install -q --no-index --no-deps --target "$WORK/site" $wheels
}

say() { echo "$1" | tee -a "$RESULTS/summary.txt"; }

# part NAME SECONDS COMMAND...: runs within SECONDS and within the rest of the budget; the output goes to NAME.log
part() {
    local name=$1 limit=$2 left=$((BUDGET - SECONDS)) began=$SECONDS code
    shift 2
    if [ $left -lt $LEAST ]; then
        say "$name: left out, the time is used up"
        failed=1
        return 1
    fi
    # In the background, because bash handles a signal only between commands and in `wait`.
    timeout --kill-after 5 $((left < limit ? left : limit)) "$@" > "$RESULTS/$name.log" 2>&1 &
    child=$!
    wait $child
    code=$?
    child=
    [ $code -eq 0 ] || failed=1
    say "$name: exit $code after $((SECONDS - began)) s of $limit"
    pack
    return $code
}

prior_fast() { part "$1" "$2" "$PYTHON" -m prior_fast.cli.main "${@:3}"; }

# train NAME SECONDS STEPS SETTINGS...: only stage 3, from random weights, compiled on a GPU unless SETTINGS forbid it
train() {
    prior_fast "$1" "$2" train --preset "$PRESET" --data "$WORK/prepared" --out "$RESULTS/$1" "device=$DEVICE" \
        "batch_size=$BATCH" stage_epochs=0,0,1000 "max_steps_per_stage=$3" checkpoint_every=100000 \
        model.image.weights=random model.text.weights=random "${@:4}"
    local code=$?
    rm -rf "$RESULTS/$1/checkpoints" # gigabytes
    gzip -f "$RESULTS/$1"/profile/*.json 2> /dev/null # a trace, which may still be too large for the archive
    return $code
}

# ladder NAME SECONDS STAGE RUNGS STEPS
ladder() {
    prior_fast "$1" "$2" bench train --preset "$PRESET" --stage "$3" --batch "$BATCH" --rungs "$4" --steps "$5" \
        --out "$RESULTS/$1" "device=$DEVICE"
}

# steps STAGE SECONDS OPTIONS...: a stage's steps as in training; all stages of a script share one result file
steps() {
    part "steps-$1" "$2" "$PYTHON" -m prior_fast.bench.gpu.steps --preset "$PRESET" --stage "$1" --batch "$BATCH" \
        --out "$RESULTS/steps" "${@:3}" "device=$DEVICE"
}

# data: makes up studies, unless an earlier script has made them
data() {
    [ -f "$WORK/prepared/dataset.json" ] && return
    rm -rf "$WORK/phantom" "$WORK/prepared"
    prior_fast phantom 90 phantom --out "$WORK/phantom" --studies "${STUDIES:-1000}" --size 256
    prior_fast prepare 30 prepare mimic --images "$WORK/phantom" --out "$WORK/prepared"
}

# last, first FILE LINES: prints the end or the beginning of a log
last() { [ ! -f "$RESULTS/$1" ] || { echo "--- $1"; tail -n "$2" "$RESULTS/$1"; }; }
first() { [ ! -f "$RESULTS/$1" ] || { echo "--- $1"; head -n "$2" "$RESULTS/$1"; }; }

pack() {
    # Atomic: the script may be stopped at any time.
    (cd "$WORK" && find "$NAME" -type f -size "-$LARGEST" -print0 | tar czf "$OUT/.$NAME.tgz" --null -T -) &&
        mv "$OUT/.$NAME.tgz" "$OUT/$NAME.tgz"
}

stop() {
    trap '' TERM INT
    [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; } 2> /dev/null
    say "stopped by a signal after $SECONDS s"
    exit 143 # packs
}

finish() {
    say "$NAME: $([ $failed -eq 0 ] && echo "all parts ended well" || echo "a part failed or was left out") after $SECONDS s"
    exit $failed
}
