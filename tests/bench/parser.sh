#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Instructions that the parser of request heads takes for a browser's head of 12 fields, at each
# scan level, beside the byte loop of byte_loop.c. callgrind counts them: the figures are exact and
# the same on a busy machine. docs/benchmarks.md says how to read them.
#
#   sh tests/bench/parser.sh [HEAD...]
#
#   HEAD                files with request heads, instead of the browser's
#   PARSER_PROGRAM=     a built tests/bench/parser.c; otherwise it is compiled here, as a release is
set -eu
cd "$(dirname "$0")/../.."

sh etc/install-packages.sh -f etc/packages.txt valgrind
[ $# -gt 0 ] || set -- tests/fixtures/requests/valid/get-browser-twelve-fields.http
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
program=${PARSER_PROGRAM:-$folder/parser}
if [ -z "${PARSER_PROGRAM:-}" ]; then
    # The flags of preset release (CMakeLists.txt); the whole parser and what it stands on.
    cc -O2 -DNDEBUG -flto=auto -fstack-protector-strong -fPIE -pie -std=gnu11 -D_GNU_SOURCE -I. \
        -o "$program" tests/bench/parser.c tests/bench/byte_loop.c worker/http/*.c config/base/*.c
fi

# instructions LEVEL COUNT HEAD
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" "$3" \
        >"$folder/fields" 2>"$folder/log" || return 1
    sed -n 's/^==[0-9]*== Collected : //p' "$folder/log"
}

echo '| head | fields | bytes | parser | instructions | per byte | byte loop = 1 |'
echo '|---|--:|--:|---|--:|--:|--:|'
for head in "$@"; do
    loop=0
    for level in byte-loop scalar sse4.2 avx2; do
        few=$(instructions "$level" 100 "$head") && many=$(instructions "$level" 1100 "$head") || {
            if "$program" "$level" 1 "$head" >/dev/null; then
                sed 's/^/parser: /' "$folder/log" >&2
                exit 1
            fi
            echo "| $(basename "$head" .http) | | | narwhal, $level | n/a: not on this CPU | | |"
            continue
        }
        each=$(((many - few) / 1000))
        [ "$level" != byte-loop ] || loop=$each
        bytes=$(wc -c <"$head")
        name="narwhal, $level"
        [ "$level" != byte-loop ] || name='byte loop'
        awk -v head="$(basename "$head" .http)" -v fields="$(cat "$folder/fields")" -v bytes="$bytes" \
            -v name="$name" -v each="$each" -v loop="$loop" 'BEGIN {
                printf "| %s | %d | %d | %s | %d | %.2f | %.2f |\n", head, fields, bytes, name, each,
                       each / bytes, each / loop }'
    done
done
