#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Cost against size: CPU per request while connections, routes and header fields grow. About four
# minutes. docs/benchmarks.md says how to read the tables.
#
#   sh tests/bench/size.sh
#
#   ROUNDS=3          measurements of which the median is shown
#   SECONDS_EACH=2    length of one measurement
#   BENCH_BINARY=     measure this binary and build nothing
set -eu
cd "$(dirname "$0")/../.."

fail() {
    echo "size: $*" >&2
    exit 1
}
case ${ROUNDS:-3}${SECONDS_EACH:-2} in
*[!0-9]* | 0*) fail "ROUNDS and SECONDS_EACH must be whole numbers from 1 on" ;;
esac
sh etc/install-packages.sh -f etc/packages.txt wrk valgrind python3
binary=${BENCH_BINARY:-}
if [ -z "$binary" ]; then
    cmake --preset release >&2
    cmake --build build/release >&2
    binary=build/release/narwhal
fi
"$binary" --version >/dev/null || fail "BENCH_BINARY: cannot run $binary"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cc -O2 -DNDEBUG -flto=auto -std=gnu11 -D_GNU_SOURCE -I. -o "$folder/parser" \
    tests/bench/parser.c tests/bench/byte_loop.c worker/http/*.c config/base/*.c
PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/bench/size.py "$binary" "$folder/parser"
