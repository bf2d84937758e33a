#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# How the cost of narwhal's processes grows: 1, 4, 16 and 64 workers. docs/benchmarks.md says how to
# read the table. About three minutes.
#
#   sh tests/bench/scale.sh
#
#   SCALE_WORKERS='1 4 16 64'   numbers of workers
#   SCALE_ROUNDS=20             starts, reloads and kills of which median and worst are shown
#   SCALE_SECONDS=10            length of the measurements of CPU
#   SCALE_BINARY=               measure this binary and build nothing
set -eu
cd "$(dirname "$0")/../.."

fail() {
    echo "scale: $*" >&2
    exit 1
}
for number in ${SCALE_WORKERS:-1 4 16 64} ${SCALE_ROUNDS:-20} ${SCALE_SECONDS:-10}; do
    case $number in
    *[!0-9]* | 0*) fail "SCALE_WORKERS, SCALE_ROUNDS and SCALE_SECONDS hold whole numbers from 1 on, not '$number'" ;;
    esac
done
sh etc/install-packages.sh -f etc/packages.txt python3
if [ -z "${SCALE_BINARY:-}" ]; then
    cmake --preset release >&2
    cmake --build build/release >&2
    SCALE_BINARY=build/release/narwhal
fi
"$SCALE_BINARY" --version >/dev/null || fail "SCALE_BINARY: cannot run $SCALE_BINARY"
SCALE_BINARY=$(readlink -f "$SCALE_BINARY")
export SCALE_BINARY
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 tests/chaos/scale.py
