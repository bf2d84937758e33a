#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# From a fresh checkout to a running narwhal: installs what is missing of etc/packages.txt (root or
# sudo; the only step that needs a network), builds preset release, and runs narwhal in the
# foreground with the settings of etc/quickstart/narwhal.ini. Ctrl-C stops everything.
#
#   sh etc/quickstart.sh                          on 127.0.0.1:8000, two workers
#   sh etc/quickstart.sh --bind 127.0.0.1:0       arguments are narwhal's flags; see --help
#
# A second run has nothing to install or build and serves at once. The exit status is narwhal's.
set -eu
cd "$(dirname "$0")/.."
build=build/release
state=build/quickstart

fail() {
    echo "quickstart: $*" >&2
    exit 1
}

sh etc/install-packages.sh -f etc/packages.txt

# ---- build -----------------------------------------------------------------------------------
for folder in build "$build" "$state"; do
    if [ -e "$folder" ] && [ ! -w "$folder" ]; then
        fail "$PWD/$folder is not writable for $(id -un), perhaps an earlier run was another" \
             "user's; remove it or give it to $(id -un)"
    fi
done
# ninja itself configures again when a CMakeLists.txt changed; only the presets it does not see.
if [ ! -f "$build/build.ninja" ] || [ -n "$(find CMakePresets.json -newer "$build/build.ninja")" ]
then
    cmake --preset release || fail "cmake could not configure $PWD/$build; its message stands above"
fi
cmake --build "$build" || fail "the build in $PWD/$build failed; the compiler's message stands above"
mkdir -p "$state"

# ---- run -------------------------------------------------------------------------------------
# narwhal takes a flag only once, so ours gives way to the caller's.
workers='--workers 2' bind=127.0.0.1:8000 pidfile=$state/narwhal.pid before=
for argument in "$@"; do
    case $before in
    -b | --bind) bind=$argument ;;
    --pidfile) pidfile=$argument ;;
    esac
    case $argument in
    -w* | --workers | --workers=*) workers= ;;
    -b?*) bind=${argument#-b} ;;
    --bind=*) bind=${argument#*=} ;;
    --pidfile=*) pidfile=${argument#*=} ;;
    esac
    before=$argument
done

case $bind in
*:0)
    site="http://${bind%:0}:PORT"
    echo "quickstart: the log below names the PORT that $bind became"
    ;;
unix:*) site='http://localhost' && echo "quickstart: reach it with curl --unix-socket ${bind#*:}" ;;
*) site=http://$bind ;;
esac
cat <<END

  Open  $site/              what runs here, and buttons to try it
        $site/api/whoami    the application: which instance answers
        $site/healthz       answered by narwhal itself

  Try, in another terminal in $PWD:
    curl $site/api/hello/you
    pstree -ap \$(cat $pidfile)
                  the processes
    kill -HUP \$(cat $pidfile)
                  reload the settings, replace the app instances one by one
    kill -TTIN \$(cat $pidfile)
                  one worker more; -TTOU: one less
    pkill -KILL -o -P \$(cat $pidfile) -f 'narwhal: worker'
                  kill a worker
    pkill -KILL -o -P \$(cat $pidfile) -f uvicorn
                  kill an app instance
    $build/narwhalctl -s $state/narwhal.ctl status
                  workers, backends and totals (--json: for programs)
    tail -f $state/access.log
                  who asked for what

  Ctrl-C stops everything.

END
# shellcheck disable=SC2086 # two words or none
exec "$build/narwhal" -c etc/quickstart/narwhal.ini $workers "$@"
