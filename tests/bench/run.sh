#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# narwhal and nginx on the same work in one run: requests/s and CPU microseconds per request, as one
# table with ratios. docs/benchmarks.md says how to read it. Not a test: nothing fails for being slow.
#
#   sh tests/bench/run.sh
#
# The servers are pinned to CPU 0, the load and the upstream to CPU 1. Only one of them has load at a
# time; they take turns within each round, and the order changes from round to round. Environment:
#
#   ROUNDS=5          measurements of which the median is shown
#   SECONDS_EACH=3    length of one measurement
#   BENCH_ONLY=       rows to run, separated by blanks: tiny 1k 100k proxied
#   BENCH_BINARY=     measure this binary and build nothing
#   BENCH_RAW=        file that gets every measurement
set -eu
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-3}
rows=${BENCH_ONLY:-tiny 1k 100k proxied}
binary=${BENCH_BINARY:-}
ticks=$(getconf CLK_TCK)

fail() {
    echo "bench: $*" >&2
    exit 1
}
for row in $rows; do
    case $row in
    tiny | 1k | 100k | proxied) ;;
    *) fail "BENCH_ONLY: there is no row '$row'; there are tiny, 1k, 100k and proxied" ;;
    esac
done
case $rounds$seconds in
*[!0-9]* | 0*) fail "ROUNDS and SECONDS_EACH must be whole numbers from 1 on" ;;
esac
for cpu in 0 1; do
    taskset -c "$cpu" true 2>/dev/null ||
        fail "cannot pin a process to CPU $cpu: this needs the CPUs 0 and 1"
done

# ---- packages and build ----------------------------------------------------------------------
sh etc/install-packages.sh -f etc/packages.txt nginx-light wrk
if [ -z "$binary" ]; then
    cmake --preset release
    cmake --build build/release
    binary=build/release/narwhal
fi
version=$("$binary" --version) || fail "BENCH_BINARY: cannot run $binary"
load=$(cut -d ' ' -f 1 /proc/loadavg)

# ---- a folder of our own, and its end --------------------------------------------------------
work=$(mktemp -d)
started=
stop_all() {
    trap - EXIT INT TERM
    for pid in $started; do
        kill "$pid" 2>/dev/null || :
    done
    for pid in $started; do
        wait "$pid" 2>/dev/null || :
    done
    rm -rf "$work"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$work" # nginx started by root reads as nobody
mkdir "$work/files"
head -c 1024 /dev/urandom >"$work/files/1k"
head -c 102400 /dev/urandom >"$work/files/100k"

# until TEXT FILE PID WHAT: waits for a line with TEXT in FILE, as long as PID lives.
until_line() {
    tries=0
    until grep -q "$1" "$2" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ] || ! kill -0 "$3" 2>/dev/null; then
            cat "$2" >&2
            fail "$4 did not start; what it said stands above"
        fi
        sleep 0.05
    done
}

# ---- the servers -----------------------------------------------------------------------------
# Each leaves SERVER.pid and SERVER.url in the folder.
cc -O2 -D_GNU_SOURCE -o "$work/canned" tests/bench/canned.c

taskset -c 1 "$work/canned" >"$work/upstream.port" &
started="$started $!"
until_line . "$work/upstream.port" $! 'the upstream'
upstream=127.0.0.1:$(cat "$work/upstream.port")

taskset -c 0 "$work/canned" >"$work/limit.port" &
echo $! >"$work/limit.pid"
started="$started $!"
until_line . "$work/limit.port" $! 'the limit'
echo "http://127.0.0.1:$(cat "$work/limit.port")" >"$work/limit.url"

cat >"$work/narwhal.ini" <<END
[master]
bind = 127.0.0.1:0
workers = 1
[log]
error = stderr
access = off
level = info
[backend:canned]
server = $upstream
[route:tiny]
path = =/tiny
respond = 200 ok
[route:files]
path = /files
static = files
[route:proxied]
path = /proxied
backend = canned
END
taskset -c 0 "$binary" -c "$work/narwhal.ini" 2>"$work/narwhal.log" &
echo $! >"$work/narwhal.pid"
started="$started $!"
until_line READY "$work/narwhal.log" $! narwhal
grep -o '127\.0\.0\.1:[1-9][0-9]*' "$work/narwhal.log" | sed 's,^,http://,;q' >"$work/narwhal.url"

nginx_port=$(/usr/bin/python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $work/nginx.pidfile;
error_log $work/nginx.log notice;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    open_file_cache max=1000;
    open_file_cache_valid 1s;
    default_type application/octet-stream;
    client_body_temp_path $work/nginx-body;
    proxy_temp_path $work/nginx-proxy;
    fastcgi_temp_path $work/nginx-fastcgi;
    uwsgi_temp_path $work/nginx-uwsgi;
    scgi_temp_path $work/nginx-scgi;
    upstream canned {
        server $upstream;
        keepalive 32;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:$nginx_port backlog=2048;
        location = /tiny { default_type text/plain; return 200 "ok\n"; }
        location /files { root $work; }
        location /proxied {
            proxy_pass http://canned;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host \$host;
            proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header X-Forwarded-Proto \$scheme;
            proxy_set_header X-Forwarded-Host \$http_host;
        }
    }
}
END
: >"$work/nginx.log"
taskset -c 0 /usr/sbin/nginx -e "$work/nginx.log" -c "$work/nginx.conf" &
echo $! >"$work/nginx.pid"
started="$started $!"
until_line 'start worker process [0-9]' "$work/nginx.log" $! nginx
echo "http://127.0.0.1:$nginx_port" >"$work/nginx.url"

# ---- one measurement -------------------------------------------------------------------------
path_of() {
    case $1 in
    tiny) echo /tiny ;;
    proxied) echo /proxied ;;
    *) echo "/files/$1" ;;
    esac
}

tree_of() {
    echo "$1"
    for child in $(pgrep -P "$1" || :); do
        tree_of "$child"
    done
}

# Clock ticks that the tree of process $1 has used: utime + stime of proc(5). The name may hold
# blanks and parentheses, so the fields count from the last ')'.
ticks_of() {
    for pid in $(tree_of "$1"); do
        cat "/proc/$pid/stat"
    done | sed 's/.*) //' | awk '{ sum += $12 + $13 } END { print sum + 0 }'
}

# measure ROW SERVER SECONDS: one line "row server requests/s microseconds busy"
measure() {
    server_pid=$(cat "$work/$2.pid")
    before=$(ticks_of "$server_pid")
    taskset -c 1 wrk -t1 -c32 "-d${3}s" "$(cat "$work/$2.url")$(path_of "$1")" >"$work/wrk.log"
    after=$(ticks_of "$server_pid")
    if grep -E 'Non-2xx|Socket errors' "$work/wrk.log" >&2; then
        fail "$2 did not answer every request of row $1"
    fi
    awk -v row="$1" -v server="$2" -v used=$((after - before)) -v hz="$ticks" '
        /requests in/ { requests = $1; took = $4; scale = took ~ /m,$/ ? 60 : 1 }
        /^Requests\/sec:/ { rate = $2 }
        END {
            if (requests < 1) { exit 1 }
            cpu = used / hz
            print row, server, rate, 1e6 * cpu / requests, cpu * rate / requests
        }' "$work/wrk.log" || fail "wrk measured nothing; it said: $(cat "$work/wrk.log")"
}

# ---- the same answers? -----------------------------------------------------------------------
for row in $rows; do
    for server in narwhal nginx; do
        curl -sS -f -o "$work/body.$server" "$(cat "$work/$server.url")$(path_of "$row")" ||
            fail "$server does not answer row $row"
    done
    cmp -s "$work/body.narwhal" "$work/body.nginx" ||
        fail "row $row: narwhal and nginx send different bodies"
done

# ---- rounds ----------------------------------------------------------------------------------
servers_of() {
    if [ "$1" = tiny ]; then
        echo 'narwhal nginx limit'
    else
        echo 'narwhal nginx'
    fi
}
reversed() {
    turned=
    for word in "$@"; do
        turned="$word $turned"
    done
    echo "$turned"
}
for row in $rows; do
    for server in $(servers_of "$row"); do
        measure "$row" "$server" 1 >/dev/null # warm
    done
done
round=1
while [ "$round" -le "$rounds" ]; do
    echo "bench: round $round of $rounds" >&2
    for row in $rows; do
        order=$(servers_of "$row")
        # shellcheck disable=SC2086 # a list of words
        [ $((round % 2)) -eq 1 ] || order=$(reversed $order)
        for server in $order; do
            measure "$row" "$server" "$seconds" >>"$work/results"
        done
    done
    round=$((round + 1))
done

# ---- the table -------------------------------------------------------------------------------
[ -z "${BENCH_RAW:-}" ] || cp "$work/results" "$BENCH_RAW"
echo
echo "$(date -u +%Y-%m-%d), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
     "$(nproc) CPUs, Linux $(uname -r), load average before the run $load"
echo "$version," \
     "$(/usr/sbin/nginx -v 2>&1 | sed 's/.*: //')," \
     "median of $rounds rounds of $seconds s, wrk -t1 -c32"
echo
awk -v rows="$rows" '
function median(text,    value, count, i, j, swap) {
    count = split(text, value, " ")
    for (i = 2; i <= count; i++)
        for (j = i; j > 1 && value[j - 1] + 0 > value[j] + 0; j--) {
            swap = value[j]; value[j] = value[j - 1]; value[j - 1] = swap
        }
    return count % 2 ? value[(count + 1) / 2] : (value[count / 2] + value[count / 2 + 1]) / 2
}
function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "" }
{ key = $1 " " $2; rate[key] = rate[key] " " $3; cpu[key] = cpu[key] " " $4; busy[key] = busy[key] " " $5 }
END {
    name["tiny"] = "tiny response"; name["1k"] = "1 KiB file"; name["100k"] = "100 KiB file"
    name["proxied"] = "proxied tiny response"
    print "| work | server | requests/s | CPU µs/request | CPU 0 busy | requests/s : nginx | CPU : nginx | CPU : limit |"
    print "|---|---|--:|--:|--:|--:|--:|--:|"
    count = split(rows, row, " ")
    for (r = 1; r <= count; r++)
        for (s = 1; s <= 3; s++) {
            server = s == 1 ? "narwhal" : s == 2 ? "nginx" : "limit"
            key = row[r] " " server; base = row[r] " nginx"; limit = row[r] " limit"
            if (!(key in rate)) continue
            printf "| %s | %s | %.0f | %.2f | %.0f %% | %s | %s | %s |\n", name[row[r]],
                server == "limit" ? "limit (canned.c)" : server, median(rate[key]), median(cpu[key]),
                100 * median(busy[key]), ratio(median(rate[key]), median(rate[base])),
                ratio(median(cpu[key]), median(cpu[base])),
                (limit in rate) ? ratio(median(cpu[key]), median(cpu[limit])) : ""
        }
}' "$work/results"
