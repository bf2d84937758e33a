#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs a build into a folder of its own and has systemd-analyze look at the units there, the
# paths of their programs included. Fails on anything that it says.
#
#   sh systemd/verify.sh BUILD_FOLDER UNIT_FOLDER      UNIT_FOLDER as installed, from /
set -eu
build=$1
units=$2

command -v systemd-analyze >/dev/null || {
    echo "skipped: there is no systemd-analyze here (package systemd)"
    exit 77
}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
DESTDIR=$root cmake --install "$build" >"$root/install.log" || {
    cat "$root/install.log" >&2
    exit 1
}
# What the units refer to outside of narwhal, as on any Debian.
mkdir -p "$root/bin" "$root/etc/systemd/system" "$root/lib/systemd/system"
cp /bin/kill "$root/bin/kill"
for unit in sysinit basic multi-user sockets shutdown network nss-lookup; do
    cp "/lib/systemd/system/$unit.target" "$root/lib/systemd/system/" 2>/dev/null ||
        printf '[Unit]\nDescription=%s\n' "$unit" >"$root/lib/systemd/system/$unit.target"
done
status=0
for unit in narwhal.service narwhal.socket; do
    systemd-analyze verify --man=no --root="$root" "$root$units/$unit" >"$root/said" 2>&1 ||
        status=1
    if [ -s "$root/said" ]; then
        cat "$root/said" >&2
        status=1
    fi
done
# Not above 2.5 of 10, as the unit says. Older ones cannot look at a file.
if systemd-analyze security --help 2>/dev/null | grep -q -- --offline; then
    systemd-analyze security --offline=yes --root="$root" --threshold=25 --no-pager \
        "$root$units/narwhal.service" >"$root/said" 2>&1 || {
        cat "$root/said" >&2
        status=1
    }
fi
[ "$status" -eq 0 ] && echo "both units pass systemd-analyze verify and security"
exit "$status"
