#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What is lost when processes are reloaded, replaced, stopped and killed under load: narwhal, nginx
# and gunicorn as one table. docs/benchmarks.md says how to read it.
#
#   sh tests/chaos/run.sh          every event, every server: about 15 minutes
#   sh tests/chaos/run.sh short    narwhal alone, 30,000 requests a line: about 2 minutes
#
# The exit status is 1 when narwhal loses what it promises not to lose. Environment:
#
#   CHAOS_ONLY=        events, separated by blanks: hup roll ttin recycle usr2 kill app_kill app_hup
#                      stop busy
#   CHAOS_PEERS=       servers, separated by blanks: narwhal nginx gunicorn
#   CHAOS_REQUESTS=    requests of a line (200000); peers stop after 15 seconds at the latest
#   CHAOS_BINARY=      measure this narwhal; one without NARWHAL_TEST_ROUTES has no line `busy`
set -eu
cd "$(dirname "$0")/../.."

fail() {
    echo "chaos: $*" >&2
    exit 1
}
case ${1:-} in
'') ;;
short)
    CHAOS_REQUESTS=${CHAOS_REQUESTS:-30000}
    CHAOS_PEERS=${CHAOS_PEERS:-narwhal}
    export CHAOS_REQUESTS CHAOS_PEERS
    ;;
*) fail "the only argument is 'short', not '$1'" ;;
esac

peers=
case " ${CHAOS_PEERS:-nginx gunicorn} " in *' nginx '*) peers=nginx-light ;; esac
case " ${CHAOS_PEERS:-nginx gunicorn} " in *' gunicorn '*) peers="$peers gunicorn" ;; esac
# shellcheck disable=SC2086 # a list of words
sh etc/install-packages.sh -f etc/packages.txt python3 $peers

# Preset chaos is preset release with one route action more and with the load client.
cmake --preset chaos >&2
cmake --build build/chaos >&2
CHAOS_BINARY=${CHAOS_BINARY:-build/chaos/narwhal}
[ -x "$CHAOS_BINARY" ] || fail "CHAOS_BINARY: cannot run $CHAOS_BINARY"
CHAOS_BINARY=$(readlink -f "$CHAOS_BINARY")
CHAOS_LOAD=$PWD/build/chaos/tests/chaos/chaos-load
CHAOS_APP=$PWD/build/chaos/tests/chaos/chaos-app
export CHAOS_BINARY CHAOS_LOAD CHAOS_APP
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 tests/chaos/chaos.py
