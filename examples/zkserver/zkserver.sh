#!/usr/bin/env bash
# Starts and stops zkserver as zkServer.sh does ZooKeeper.
#
#     zkserver.sh {start|start-foreground|stop|restart|status} CONFIG
#
# The program is $ZKSERVER, or the zkserver beside this script, or the one on the PATH. Its process id
# and what it says are in the configuration's dataDir: zkserver.pid, zkserver.log.
set -euo pipefail

usage() {
    echo "usage: $0 {start|start-foreground|stop|restart|status} CONFIG" >&2
    exit 2
}

[ "$#" -eq 2 ] || usage
config=$2
[ -r "$config" ] || { echo "$config: cannot be read" >&2; exit 1; }

# The value of a key in the configuration, the last one if there are several.
value() {
    sed -n "s/^[[:space:]]*$1[[:space:]]*[=:][[:space:]]*//p" "$config" | tail -n 1 |
        sed 's/[[:space:]]*$//'
}

data=$(value dataDir)
[ -n "$data" ] || { echo "$config: dataDir is not set" >&2; exit 1; }
pid_file=$data/zkserver.pid
log_file=$data/zkserver.log

find_program() {
    program=${ZKSERVER:-$(dirname "${BASH_SOURCE[0]}")/zkserver}
    [ -x "$program" ] || program=$(command -v zkserver || true)
    [ -n "$program" ] || { echo "no zkserver: set ZKSERVER" >&2; exit 1; }
}

# The process, if it is running and is one of ours.
running() {
    [ -r "$pid_file" ] || return 1
    pid=$(cat "$pid_file")
    [ -n "$pid" ] && lives "$pid" || return 1
    grep -q zkserver "/proc/$pid/cmdline" 2>/dev/null
}

# Whether a process is there and has not ended: one that nobody has asked how it ended has.
lives() {
    case $(sed -n 's/^State:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) in
        '' | Z*) return 1 ;;
    esac
}

# Where clients find it: of an ensemble the configuration may say so in the server's own line.
port() {
    local port id
    port=$(value clientPort)
    if [ -z "$port" ] && [ -r "$data/myid" ]; then
        id=$(tr -d '[:space:]' <"$data/myid")
        port=$(value "server\.$id" | sed -n 's/.*;//p' | sed 's/.*://')
    fi
    echo "$port"
}

address() {
    local address
    address=$(value clientPortAddress)
    case $address in
        '' | 0.0.0.0 | ::) echo 127.0.0.1 ;;
        *) echo "$address" ;;
    esac
}

ask() { # a four-letter word
    exec 3<>"/dev/tcp/$(address)/$(port)" || return 1
    printf '%s' "$1" >&3
    cat <&3
    exec 3>&-
}

start() {
    if running; then echo "zkserver runs already, process $pid"; return 0; fi
    find_program
    mkdir -p "$data"
    nohup "$program" "$config" >>"$log_file" 2>&1 </dev/null &
    local child=$! i
    echo "$child" >"$pid_file"
    for i in 1 2 3 4 5 6 7 8 9 10; do
        if ! lives "$child"; then
            echo "zkserver has not started; the end of $log_file:" >&2
            tail -n 3 "$log_file" >&2
            rm -f "$pid_file"
            return 1
        fi
        if (ask ruok) >/dev/null 2>&1; then break; fi
        sleep 0.1
    done
    echo "zkserver has started, process $child"
}

stop() {
    if ! running; then echo "zkserver does not run"; rm -f "$pid_file"; return 0; fi
    kill "$pid"
    local i
    for i in $(seq 100); do
        lives "$pid" || { rm -f "$pid_file"; echo "zkserver has stopped"; return 0; }
        sleep 0.1
    done
    echo "zkserver, process $pid, does not stop" >&2
    return 1
}

status() {
    if ! running; then echo "zkserver does not run"; return 1; fi
    local said
    said=$( (ask srvr) 2>/dev/null) || said=""
    if ! printf '%s\n' "$said" | grep '^Mode:'; then
        echo "zkserver, process $pid, does not serve: $said"
        return 1
    fi
}

case $1 in
    start) start ;;
    start-foreground) find_program; exec "$program" "$config" ;;
    stop) stop ;;
    restart) stop && start ;;
    status) status ;;
    *) usage ;;
esac
