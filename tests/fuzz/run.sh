#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs the fuzz targets, each for so many seconds, two at a time.
#
#   sh tests/fuzz/run.sh SECONDS            all targets
#   sh tests/fuzz/run.sh SECONDS NAME…      these: request, response, chunked …
#
# Installs what is missing, builds preset fuzz (clang, libFuzzer, ASan, UBSan), and starts from the
# seeds of tests/fuzz/seeds/, the fixtures, the kept regressions, and what earlier runs found worth
# keeping (build/fuzz/corpus). An input that violates a property, makes a sanitizer speak, takes
# longer than 10 s or more than 2 GiB is a finding: it is kept in tests/fuzz/regressions/NAME/, from
# where the test unit.fuzz.NAME replays it from then on, and the exit status is 1. Environment:
#
#   FUZZ_JOBS=2    targets that run at the same time
#   FUZZ_BUILD=    folder of a build of preset fuzz; nothing is built then
set -eu
cd "$(dirname "$0")/../.."

fail() {
    echo "fuzz: $*" >&2
    exit 2
}
seconds=${1:-}
case $seconds in
'' | *[!0-9]* | 0*) fail "usage: sh tests/fuzz/run.sh SECONDS [NAME…]; SECONDS is a whole number from 1 on" ;;
esac
shift
jobs=${FUZZ_JOBS:-2}
case $jobs in
'' | *[!0-9]* | 0*) fail "FUZZ_JOBS must be a whole number from 1 on" ;;
esac

build=${FUZZ_BUILD:-}
if [ -z "$build" ]; then
    sh etc/install-packages.sh -f etc/packages.txt build-essential cmake ninja-build pkg-config \
       libev-dev libinih-dev libc-ares-dev libseccomp-dev libjansson-dev clang-14 libclang-rt-14-dev
    build=build/fuzz
    cmake --preset fuzz >/dev/null && cmake --build "$build" -j "$(nproc)" --target fuzz ||
        fail "preset fuzz does not build"
fi
targets=$build/tests/fuzz/targets.txt
[ -r "$targets" ] || fail "$targets is not there: $build is no build of preset fuzz"
for name in "$@"; do
    grep -q "^$name " "$targets" ||
        fail "there is no target '$name'; there are" $(cut -d ' ' -f 1 "$targets")
done
names=${*:-$(cut -d ' ' -f 1 "$targets")}

work=$(mktemp -d)
running=
stop_all() {
    trap - EXIT INT TERM
    for pid in $running; do
        kill "$pid" 2>/dev/null || :
    done
    wait
    rm -rf "$work"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- one target ------------------------------------------------------------------------------
# Becomes the fuzzer, so that its process is the one that is waited for and stopped.
start() { # NAME
    corpus=$build/corpus/$1
    kept=tests/fuzz/regressions/$1
    mkdir -p "$corpus" "$kept"
    ls "$kept" >"$work/$1.before"
    max_length=$(sed -n "s/^$1 \([0-9]*\) .*/\1/p" "$targets")
    dictionary=$(sed -n "s/^$1 [0-9]* \([^ ]*\) .*/\1/p" "$targets")
    folders=$(sed -n "s/^$1 [0-9]* [^ ]* //p" "$targets")
    # shellcheck disable=SC2086 # a list of folders
    exec "$build/tests/fuzz/fuzz_$1" -max_total_time="$seconds" -max_len="$max_length" -dict="$dictionary" \
        -timeout=10 -report_slow_units=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$kept/" "$corpus" $folders "$kept" >"$work/$1.log" 2>&1
}

status=0
report() { # NAME EXIT-STATUS: its row, and what it found
    log=$work/$1.log
    ran=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log" | tail -n 1)
    edges=$(sed -n 's/^#[0-9].* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    new=$(ls "tests/fuzz/regressions/$1" | grep -vxFf "$work/$1.before" || :)
    found=$(printf '%s' "$new" | grep -c . || :)
    printf '%-10s %12s %9s %7s %9s\n' "$1" "${ran:--}" "${rate:--}" "${edges:--}" "$found"
    [ "$2" -ne 0 ] || [ "$found" -gt 0 ] || return 0
    status=1
    {
        echo "---- $1: exit status $2; the end of what it said:"
        grep -aE 'PROPERTY VIOLATED|CHECK|runtime error:|ERROR: |SUMMARY: ' "$log" || tail -n 20 "$log"
        for file in $new; do
            echo "     kept: tests/fuzz/regressions/$1/$file"
            echo "     again: $build/tests/fuzz/fuzz_$1 tests/fuzz/regressions/$1/$file"
            echo "     or, with preset dev: build/dev/tests/fuzz/replay_$1 tests/fuzz/regressions/$1/$file"
        done
        [ -n "$new" ] || echo "     no file was kept: an input that is there already does it, or the target itself is broken"
    } >>"$work/findings"
}

# ---- all of them, so many at a time ----------------------------------------------------------
printf '%-10s %12s %9s %7s %9s\n' target executions exec/s edges findings
queue=$names
live=
while [ -n "$queue$live" ]; do
    # Each name goes to the first free place; the pids of those that run stand in NAME:PID words.
    count=0
    for _ in $live; do count=$((count + 1)); done
    while [ "$count" -lt "$jobs" ] && [ -n "$queue" ]; do
        # shellcheck disable=SC2086 # a list of names
        set -- $queue
        (start "$1") &
        live="$live $1:$!"
        running="$running $!"
        count=$((count + 1))
        shift
        queue=$*
    done
    # The oldest is the first to end: all run for the same time.
    # shellcheck disable=SC2086
    set -- $live
    ended=0
    wait "${1#*:}" || ended=$?
    report "${1%%:*}" "$ended"
    shift
    live=$*
done
running=
[ ! -s "$work/findings" ] || cat "$work/findings"
exit "$status"
