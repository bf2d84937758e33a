#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Requests that fail while servers close idle connections, end or are killed: narwhal beside Debian's
# nginx and HAProxy, before the same servers and with the same clients, in one run. Prints a table
# in Markdown. Not a test: nothing fails for being worse.
#
#   sh tests/bench/failures.sh
#
# Environment:
#
#   ROUNDS=3          runs of each row, whose failures are added
#   BENCH_BINARY=     measure this binary and build nothing
set -eu
cd "$(dirname "$0")/../.."
case ${ROUNDS:-3} in
*[!0-9]* | 0*)
    echo "failures: ROUNDS must be a whole number from 1 on" >&2
    exit 1
    ;;
esac
sh etc/install-packages.sh -f etc/packages.txt nginx-light haproxy
binary=${BENCH_BINARY:-}
if [ -z "$binary" ]; then
    cmake --preset release
    cmake --build build/release
    binary=build/release/narwhal
fi
exec /usr/bin/python3 tests/bench/failures.py "$binary"
