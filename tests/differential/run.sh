#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Every request of tests/fixtures/requests against narwhal, nginx, HAProxy, h2o and libhttp-parser:
# who takes it, who refuses it, and where narwhal is the laxer one. See README.md here.
#
#   sh tests/differential/run.sh [--all] [NAME…]
#
#   --all   every row of the table, also those in which all agree
#   NAME    only the files whose name contains one of the NAMEs
#
# Installs what is missing (needs root or sudo, and a network), builds preset release unless
# NARWHAL_BINARY names a binary. Takes about a minute. The exit status is 1 when narwhal is laxer
# than another one and allowed.txt does not say why, or when it takes a file of invalid/.
set -eu
cd "$(dirname "$0")/../.."

sh etc/install-packages.sh -f etc/packages.txt nginx-light haproxy h2o libhttp-parser-dev python3
if [ -z "${NARWHAL_BINARY:-}" ]; then
    cmake --preset release
    cmake --build build/release
    NARWHAL_BINARY=$PWD/build/release/narwhal
fi
export NARWHAL_BINARY
exec /usr/bin/python3 tests/differential/differential.py "$@"
