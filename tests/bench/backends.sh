#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# How narwhal, and Debian's nginx and HAProxy beside it, use servers that take one request at a
# time, and what servers and requests that wait cost. docs/benchmarks.md says how to read the
# tables. Not a test: nothing fails for being slow. About six minutes.
#
#   sh tests/bench/backends.sh
#
# Environment:
#
#   ROUNDS=5          measurements of which the median is shown
#   SECONDS_EACH=3    length of one measurement of CPU time
#   BENCH_ONLY=       tables, separated by blanks: busy eight servers pooled queued choice
#   BENCH_BINARY=     measure this binary and build nothing
set -eu
cd "$(dirname "$0")/../.."
case ${ROUNDS:-5}${SECONDS_EACH:-3} in
*[!0-9]* | 0*)
    echo "backends: ROUNDS and SECONDS_EACH must be whole numbers from 1 on" >&2
    exit 1
    ;;
esac
sh etc/install-packages.sh -f etc/packages.txt nginx-light haproxy wrk
binary=${BENCH_BINARY:-}
if [ -z "$binary" ]; then
    cmake --preset release >&2
    cmake --build build/release >&2
    binary=build/release/narwhal
fi
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 tests/bench/backends.py "$(readlink -f "$binary")"
