#!/usr/bin/env bash
# The same seeds, compiled in as many ways as there are here: by g++ and clang++, without and with
# optimization, for 32 bits, and for a machine whose bytes stand the other way round. Each must give
# the same hash of all that happens in all runs.
#
#     tests/portable.sh [--install] [--seeds=N] [--first=N] [-jN]
#
# --install gets what is missing from Debian: g++, clang, the two cross compilers and qemu-user, in
# which what does not run here does. What is not there is left out by name, and then the exit status
# is 77 where all the others agree. 20 seeds; -j2; minutes, most of them for compiling.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seeds=20 first=1 jobs=2 install=no
for argument in "$@"; do
    case $argument in
    --install) install=yes ;;
    --seeds=*) seeds=${argument#*=} ;;
    --first=*) first=${argument#*=} ;;
    -j*) jobs=${argument#-j} ;;
    *)
        echo "usage: portable.sh [--install] [--seeds=N] [--first=N] [-jN]" >&2
        exit 2
        ;;
    esac
done

if [ "$install" = yes ]; then
    root=()
    if [ "$(id -u)" -ne 0 ]; then root=(sudo); fi
    "${root[@]}" apt-get update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ clang qemu-user g++-i686-linux-gnu g++-s390x-linux-gnu || exit 2
fi

tmp=$(mktemp -d "${TMPDIR:-/tmp}/coord-portable.XXXXXX") || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
printf '#define COORD_IMPLEMENTATION\n#include "coord.hpp"\n' >"$tmp/coord.cpp"

# Without the cross compiler the machine's own may do for 32 bits, as with Debian's g++-multilib.
narrow=i686-linux-gnu-g++
printf '#include <string>\nint main() {}\n' >"$tmp/narrow.cpp"
if ! command -v "$narrow" >/dev/null 2>&1 &&
    g++ -m32 -static "$tmp/narrow.cpp" -o "$tmp/narrow" 2>/dev/null; then
    narrow="g++ -m32"
fi

# name | compiler and flags | what it may need to run
ways=(
    "g++ -O0|g++ -O0|"
    "g++ -O2|g++ -O2|"
    "clang++ -O0|clang++ -O0|"
    "clang++ -O2|clang++ -O2|"
    "32 bits, g++ -O2|$narrow -O2 -static|qemu-i386"
    "big-endian, g++ -O2|s390x-linux-gnu-g++ -O2 -static|qemu-s390x"
)

# `try N`: writes into $tmp/N.out the hash, or why there is none.
try() {
    local way=${ways[$1]} name flags emulator out=$tmp/$1.out run=() begin=$SECONDS
    IFS='|' read -r name flags emulator <<<"$way"
    local command=($flags -std=c++17 -w -pthread -I"$here" -I"$here/tests")
    if ! command -v "${command[0]}" >/dev/null 2>&1; then
        echo "absent ${command[0]} is not here" >"$out"
        return
    fi
    if ! "${command[@]}" "$tmp/coord.cpp" "$here/tests/sim/random.cpp" -o "$tmp/$1" \
        2>"$tmp/$1.err"; then
        echo "failed does not compile: $(grep -m1 error "$tmp/$1.err")" >"$out"
        return
    fi
    local compiled=$((SECONDS - begin))
    if [ -n "$emulator" ] && ! "$tmp/$1" --seeds=0 >/dev/null 2>&1; then
        run=("$emulator")
        if ! command -v "$emulator" >/dev/null 2>&1; then
            echo "absent $emulator is not here" >"$out"
            return
        fi
    fi
    begin=$SECONDS
    "${run[@]}" "$tmp/$1" --seeds="$seeds" --first="$first" >"$tmp/$1.log" 2>&1
    local status=$? hash
    hash=$(sed -n 's/^hash of all //p' "$tmp/$1.log")
    if [ "$status" -ne 0 ] || [ -z "$hash" ]; then
        echo "failed $(grep -m1 -e ': P[0-9]' -e assertion "$tmp/$1.log"), status $status" >"$out"
    else
        echo "$hash compiled in $compiled s, run in $((SECONDS - begin)) s${run:+ by $run}" >"$out"
    fi
}

running=0
for i in "${!ways[@]}"; do
    try "$i" &
    running=$((running + 1))
    if [ "$running" -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
done
wait

right="" wrong=0 absent=0 equal=0
for i in "${!ways[@]}"; do
    read -r hash rest <"$tmp/$i.out"
    printf '%-22s %-16s %s\n' "${ways[$i]%%|*}" "$hash" "$rest"
    case $hash in
    absent) absent=$((absent + 1)) ;;
    failed) wrong=$((wrong + 1)) ;;
    *)
        right=${right:-$hash}
        if [ "$hash" = "$right" ]; then equal=$((equal + 1)); else wrong=$((wrong + 1)); fi
        ;;
    esac
done
printf '%d seeds from %d: %d ways agree, %d do not, %d are not here\n' \
    "$seeds" "$first" "$equal" "$wrong" "$absent"
if [ "$wrong" -gt 0 ] || [ "$equal" -lt 2 ]; then exit 1; fi
if [ "$absent" -gt 0 ]; then exit 77; fi
