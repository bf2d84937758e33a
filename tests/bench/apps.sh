#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# FastAPI's hello world behind narwhal with two uvicorn instances, behind Debian's nginx with two
# uvicorn, and under Debian's gunicorn with two uvicorn workers, which has no proxy in between:
# requests/s, 99th percentile, CPU time. docs/benchmarks.md says how to read it. Not a test: nothing
# fails for being slow. About two minutes.
#
#   sh tests/bench/apps.sh
#
# Environment:
#
#   ROUNDS=5          measurements of which the median is shown
#   SECONDS_EACH=5    length of one measurement
#   BENCH_BINARY=     measure this binary and build nothing
#   BENCH_RAW=        file that gets every measurement: server, requests/s, p99 ms, µs, µs
set -eu
cd "$(dirname "$0")/../.."
case ${ROUNDS:-5}${SECONDS_EACH:-5} in
*[!0-9]* | 0*)
    echo "apps: ROUNDS and SECONDS_EACH must be whole numbers from 1 on" >&2
    exit 1
    ;;
esac
# uvloop and httptools are what Debian's uvicorn recommends and pip's uvicorn[standard] brings.
sh etc/install-packages.sh -f etc/packages.txt nginx-light wrk gunicorn python3-uvloop \
   python3-httptools
binary=${BENCH_BINARY:-}
if [ -z "$binary" ]; then
    cmake --preset release >&2
    cmake --build build/release >&2
    binary=build/release/narwhal
fi
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 tests/bench/apps.py "$(readlink -f "$binary")"
