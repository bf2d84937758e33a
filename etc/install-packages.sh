#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that are named and missing; when none is, it does nothing, quickly.
#
#   sh etc/install-packages.sh -f LIST… PACKAGE…
#
# A LIST is a file with one package a line, # begins a comment. Needs root or sudo when something
# is missing; that is also the only case that needs a network.
set -eu

fail() {
    echo "install-packages: $*" >&2
    exit 1
}

wanted=
while [ $# -gt 0 ]; do
    if [ "$1" = -f ]; then
        [ -r "${2:-}" ] || fail "cannot read the list '${2:-}'"
        wanted="$wanted $(sed -e 's/#.*//' "$2")"
        shift
    else
        wanted="$wanted $1"
    fi
    shift
done

command -v dpkg-query >/dev/null ||
    fail "this is no Debian: install by the names of your system, then build as CONTRIBUTING.md" \
         "says:" "$wanted"
missing=
for package in $wanted; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || state=absent
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
        fail "cannot install$missing: neither root nor sudo is there; install them as root with" \
             "apt-get install$missing"
    as_root=sudo
fi
echo "installing:$missing"
install="$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q"
install="$install --no-install-recommends"
# The package lists may be fresh enough; an update takes its time only when they are not.
# shellcheck disable=SC2086 # lists of words
$install $missing || { $as_root apt-get update -q && $install $missing; } ||
    fail "apt-get could not install$missing; its own message stands above"
