#!/usr/bin/env bash
# Measures for half an hour on a GPU and packs one archive:
#     bash bench/gpu/all.sh OUT
# Runs first_light.sh, speed.sh and breadth.sh, one after another; OUT/prior-fast-gpu.tar holds their results. If the
# first script finds wrong numbers, the others run too; their figures then help to find the error and are not valid.
set -u
[ $# -eq 1 ] || { echo "usage: bash $0 OUT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
failed=0 child=

pack() { (cd "$OUT" && tar cf prior-fast-gpu.tar --ignore-failed-read {first-light,speed,breadth}.tgz 2> /dev/null); }
stop() {
    trap '' TERM INT
    [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; }
    exit 143
}
trap stop TERM INT
trap pack EXIT

for script in first_light speed breadth; do
    bash "$here/$script.sh" "$OUT" &
    child=$!
    wait $child || failed=1
    child=
done
exit $failed
