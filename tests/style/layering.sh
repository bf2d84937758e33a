#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Fails when a source file includes, or calls, what its folder must not: config/base <- config <-
# worker <- master (docs/ARCHITECTURE.md). Run from the root of a tree, or with a tree as argument.
# Before it judges the tree it judges trees with one planted fault each, and fails unless it finds
# every one: a check that finds nothing looks just like a check that does not work.
set -eu

# allowed FOLDER: the extended regular expression of the project headers that files directly in
# FOLDER may include.
allowed() {
    case $1 in
    config/base) echo '^config/base/[^/]*$' ;;
    config) echo '^config/[^/]*$|^config/base/[^/]*$' ;;
    worker/http) echo '^config/base/[^/]*$|^worker/http/' ;;
    worker/static) echo '^config/|^worker/http/|^worker/static/' ;;
    worker/proxy) echo '^config/|^worker/[^/]*$|^worker/http/|^worker/proxy/' ;;
    worker/resolver) echo '^config/|^worker/resolver/' ;;
    worker) echo '^config/|^worker/' ;;
    master) echo '^config/|^master/|^worker/(worker|heritage|scoreboard|slot_queue|wake|channel|sandbox|resolver/resolver|resolver/answer)\.h$' ;;
    esac
}

# forbidden FOLDER: the extended regular expression of calls that its sources must not contain.
forbidden() {
    case $1 in
    config | config/base) echo '(^|[^[:alnum:]_])(socket|bind|listen|accept4?|connect|fork|vfork|ev_run|exit|_exit)[[:space:]]*\(' ;;
    worker | worker/*) echo '(^|[^[:alnum:]_])(fork|vfork|waitpid|waitid|wait3|wait4)[[:space:]]*\(' ;;
    master) echo '(^|[^[:alnum:]_])(sleep|usleep|nanosleep)[[:space:]]*\(' ;;
    esac
}

# Drops comments and the contents of string literals, and keeps the number of lines.
strip_comments() {
    awk '
    {
        out = ""; n = length($0); i = 1
        while (i <= n) {
            two = substr($0, i, 2); c = substr($0, i, 1)
            if (inside) {
                if (two == "*/") { inside = 0; i += 2 } else i++
            } else if (two == "/*") { inside = 1; i += 2; out = out " " }
            else if (two == "//") break
            else if (c == "\"" && $0 !~ /^[[:space:]]*#[[:space:]]*include/) {
                i++
                while (i <= n && substr($0, i, 1) != "\"") i += (substr($0, i, 1) == "\\") ? 2 : 1
                i++; out = out "\"\""
            } else { out = out c; i++ }
        }
        print out
    }' "$1"
}

check_folder() { # TREE FOLDER: prints the faults
    allow=$(allowed "$2")
    forbid=$(forbidden "$2")
    for file in "$1/$2"/*.c "$1/$2"/*.h "$1/$2"/*.def; do
        [ -f "$file" ] || continue
        strip_comments "$file" | grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' |
            while IFS= read -r line; do
                header=$(printf '%s\n' "$line" | sed 's/^[^"]*"\([^"]*\)".*/\1/')
                printf '%s\n' "$header" | grep -qE "$allow" ||
                    echo "$2/${file##*/}:${line%%:*}: $2/ must not include $header"
            done
        [ -z "$forbid" ] ||
            strip_comments "$file" | grep -nE "$forbid" |
            while IFS= read -r line; do
                echo "$2/${file##*/}:${line%%:*}: $2/ must not call this:${line#*:}"
            done
    done
}

folders="config/base config worker/http worker/static worker/proxy worker/resolver worker master"
check_tree() {
    for folder in $folders; do
        check_folder "$1" "$folder"
    done
}

# ---- the check checks itself -----------------------------------------------------------------
plant_dir=$(mktemp -d)
trap 'rm -rf "$plant_dir"' EXIT
plant() { # FOLDER LINE FOUND|CLEAN
    rm -rf "${plant_dir:?}/tree"
    mkdir -p "$plant_dir/tree/$1"
    printf '/* a comment */\n%s\n' "$2" >"$plant_dir/tree/$1/planted.c"
    found=CLEAN
    [ -z "$(check_tree "$plant_dir/tree")" ] || found=FOUND
    [ "$found" = "$3" ] || {
        echo "style.layering is broken: '$2' in $1/ must be $3 but is $found" >&2
        exit 2
    }
}
plant config/base '#include "config/value.h"' FOUND
plant config/base '#include "config/base/buf.h"' CLEAN
plant config '#include "worker/heritage.h"' FOUND
plant config 'int fd = socket(AF_INET, SOCK_STREAM, 0);' FOUND
plant config '    (void)bind(fd, &sa, length);' FOUND
plant config 'int websocket(void); /* socket( in a comment, */ char *s = "bind(";' CLEAN
plant config 'int value_bind(int x);' CLEAN
plant worker/http '#include "worker/conn.h"' FOUND
plant worker/http '#include "config/config.h"' FOUND
plant worker/http '#include "worker/http/head.h"' CLEAN
plant worker/static '#include "worker/proxy/pool.h"' FOUND
plant worker/proxy '#include "worker/static/static.h"' FOUND
plant worker/resolver '#include "worker/conn.h"' FOUND
plant worker/resolver 'pid_t pid = fork();' FOUND
plant worker '#include "master/child.h"' FOUND
plant worker 'pid_t pid = fork();' FOUND
plant worker/proxy 'pid = vfork ();' FOUND
plant worker/static 'waitpid(pid, NULL, 0);' FOUND
plant worker '// fork() is for the master' CLEAN
plant master '#include "worker/http/request.h"' FOUND
plant master '#include "worker/channel.h"' CLEAN
plant master '    sleep(1);' FOUND
plant master 'pid_t pid = fork();' CLEAN

# ---- the tree --------------------------------------------------------------------------------
tree=${1:-.}
for folder in $folders; do
    [ -d "$tree/$folder" ] || {
        echo "style.layering: no folder $tree/$folder: run it from the root of the repository" >&2
        exit 2
    }
done
# A folder that the table above does not know would go unchecked.
unknown=$(cd "$tree" && find config worker master -mindepth 1 -type d |
    grep -vxF "$(printf '%s\n' $folders)" || :)
[ -z "$unknown" ] || {
    echo "style.layering: no rule for folder" $unknown "- add it to tests/style/layering.sh" >&2
    exit 1
}
faults=$(check_tree "$tree")
[ -z "$faults" ] || {
    printf '%s\n' "$faults" >&2
    exit 1
}
echo "layering holds: $folders"
