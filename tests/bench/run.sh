#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# narwhal beside Debian's nginx, h2o, lighttpd and HAProxy on the same work in one run: requests/s,
# CPU microseconds per request, memory of idle connections, system calls. docs/benchmarks.md says
# how to read it. Not a test: nothing fails for being slow.
#
#   sh tests/bench/run.sh
#
# Environment:
#
#   ROUNDS=5          measurements of which the median is shown
#   SECONDS_EACH=3    length of one measurement
#   BENCH_ONLY=       rows to run, separated by blanks: tiny 1k 100k 10m connect pipelined proxied proxied100k
#                     memory calls
#   BENCH_BINARY=     measure this binary and build nothing
#   BENCH_RAW=        file that gets every measurement: row, server, requests/s, µs, busy
set -eu
cd "$(dirname "$0")/../.."
case ${ROUNDS:-5}${SECONDS_EACH:-3} in
*[!0-9]* | 0*)
    echo "bench: ROUNDS and SECONDS_EACH must be whole numbers from 1 on" >&2
    exit 1
    ;;
esac
sh etc/install-packages.sh -f etc/packages.txt nginx-light h2o lighttpd haproxy wrk strace
binary=${BENCH_BINARY:-}
if [ -z "$binary" ]; then
    cmake --preset release
    cmake --build build/release
    binary=build/release/narwhal
fi
exec /usr/bin/python3 tests/bench/bench.py "$binary"
