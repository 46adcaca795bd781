# Sourced by the scripts of this folder: parts with a limit each, one folder of results, one archive of it.
#
# PYTHON: the interpreter. DEVICE, PRESET, BATCH: what is measured. WORK: data, caches and results, kept for the next
# script. CARRY: what was packed elsewhere (pack.sh). BUDGET: seconds for all parts of a script together.
set -u
FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} PRESET=${PRESET:-paper} BATCH=${BATCH:-128}
WORK=${WORK:-runs/gpu} CARRY=${CARRY:-runs/carry}
LEAST=5    # seconds that are worth starting something for
LARGEST=8M # of a file that goes into the archive

# begin NAME BUDGET OUT: NAME's results go to WORK/NAME, and as OUT/NAME.tgz to the caller
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
    # pack.sh compiles without it: it times products, and there is nothing to time where there is no GPU.
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

# part NAME SECONDS COMMAND...: within SECONDS and within what is left of the budget; its output goes to NAME.log
part() {
    local name=$1 limit=$2 left=$((BUDGET - SECONDS)) began=$SECONDS code
    shift 2
    if [ $left -lt $LEAST ]; then
        say "$name: left out, the time is used up"
        failed=1
        return 1
    fi
    # In the background, for bash hears a signal only between commands and in `wait`.
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

# train NAME SECONDS STEPS SETTINGS...: stage 3 alone, of random weights, compiled on a GPU unless SETTINGS say no
train() {
    prior_fast "$1" "$2" train --preset "$PRESET" --data "$WORK/prepared" --out "$RESULTS/$1" "device=$DEVICE" \
        "batch_size=$BATCH" stage_epochs=0,0,1000 "max_steps_per_stage=$3" checkpoint_every=100000 \
        model.image.weights=random model.text.weights=random "${@:4}"
    local code=$?
    rm -rf "$RESULTS/$1/checkpoints" # gigabytes
    gzip -f "$RESULTS/$1"/profile/*.json 2> /dev/null # a trace: some of them are too large for the archive even so
    return $code
}

# ladder NAME SECONDS STAGE RUNGS STEPS
ladder() {
    prior_fast "$1" "$2" bench train --preset "$PRESET" --stage "$3" --batch "$BATCH" --rungs "$4" --steps "$5" \
        --out "$RESULTS/$1" "device=$DEVICE"
}

# steps STAGE SECONDS OPTIONS...: a stage's steps as training takes them; all stages of a script share one report
steps() {
    part "steps-$1" "$2" "$PYTHON" -m prior_fast.bench.gpu.steps --preset "$PRESET" --stage "$1" --batch "$BATCH" \
        --out "$RESULTS/steps" "${@:3}" "device=$DEVICE"
}

# data: made-up studies, unless a script before has made them
data() {
    [ -f "$WORK/prepared/dataset.json" ] && return
    rm -rf "$WORK/phantom" "$WORK/prepared"
    prior_fast phantom 90 phantom --out "$WORK/phantom" --studies "${STUDIES:-1000}" --size 256
    prior_fast prepare 30 prepare mimic --images "$WORK/phantom" --out "$WORK/prepared"
}

# last, first FILE LINES: the end or the beginning of a log, for whoever sees the output alone
last() { [ ! -f "$RESULTS/$1" ] || { echo "--- $1"; tail -n "$2" "$RESULTS/$1"; }; }
first() { [ ! -f "$RESULTS/$1" ] || { echo "--- $1"; head -n "$2" "$RESULTS/$1"; }; }

pack() {
    # Whole or not at all: it may be the last that there is time for.
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
