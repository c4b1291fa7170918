#!/usr/bin/env bash
# What the header costs to compile: CPU seconds of the declarations (every includer pays them) and
# of the implementation (one file pays it), with and without files and the thread before them, and
# the size of its code. Minimum, median and maximum of the repeats; the references are the standard
# headers that the declarations include, and the same with <chrono> and <iostream>; and
# <nlohmann/json.hpp>, where it is installed. The last column is the ratio to that, of the minima:
# budgets are ratios, since machines differ. All take turns, so that a machine that is busy for a
# while is so for all of them.
#
# usage: bench/include_cost.sh [REPEATS] [CXX]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
repeats=${1:-5}
cxx=${2:-g++}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

headers=$(sed -n '/^#ifndef COORD_HPP/,/^#endif  \/\/ COORD_HPP/s/^#include \(<.*>\)/\1/p' \
    "$here/coord.hpp" | sort -u)
for header in $headers; do echo "#include $header"; done >"$tmp/standard.cpp"
{ cat "$tmp/standard.cpp"; echo '#include <chrono>'; echo '#include <iostream>'; } >"$tmp/more.cpp"
echo '#include "coord.hpp"' >"$tmp/declarations.cpp"
printf '#define COORD_IMPLEMENTATION\n#include "coord.hpp"\n' >"$tmp/implementation.cpp"
{ printf '#define COORD_NO_FILES\n#define COORD_NO_THREADS\n'; cat "$tmp/implementation.cpp"; } \
    >"$tmp/core.cpp"

echo '#include <nlohmann/json.hpp>' >"$tmp/json.cpp"
"$cxx" -std=c++17 -fsyntax-only "$tmp/json.cpp" 2>/dev/null || rm "$tmp/json.cpp"

measure() {  # source, flags
    local source=$1 times=$tmp/times$2
    [ -e "$tmp/$source.cpp" ] || return 0
    TIMEFORMAT='%U %S'
    { time "$cxx" -std=c++17 "$2" -I"$here" -c "$tmp/$source.cpp" -o "$tmp/$source$2.o"; } \
        2>>"$times.$source"
}

show() {  # label, source, flags, budget as a ratio or nothing
    [ -e "$tmp/$2.cpp" ] || return 0
    local reference=
    [ ! -e "$tmp/json.cpp" ] || reference=$tmp/times-O0.json
    awk '{print FILENAME == ARGV[1] ? "own" : "json", $1 + $2}' "$tmp/times$3.$2" $reference |
        sort -k1,1r -k2,2n | awk -v label="$1" -v budget="$4" '
            $1 == "json" {if (!least) least = $2; next}
            {t[++n] = $2}
            END {
                printf "%-44s %8.2f %8.2f %8.2f", label, t[1], t[int((n + 1) / 2)], t[n]
                if (least) printf " %8.2f", t[1] / least
                if (least && budget) printf " %8.2f", budget
                print ""
            }'
}

for ((i = 0; i < repeats; i++)); do
    measure json -O0
    measure standard -O0
    measure more -O0
    measure declarations -O0
    measure implementation -O0
    measure implementation -O2
    measure core -O2
done

[ -e "$tmp/json.cpp" ] || echo "no <nlohmann/json.hpp>: no ratios"
printf '%-44s %8s %8s %8s %8s %8s  CPU seconds, %s\n' \
    "compile" min median max ratio budget "$("$cxx" -dumpversion)"
show "<nlohmann/json.hpp>, -O0" json -O0 ""
show "standard headers of the declarations, -O0" standard -O0 ""
show "the same, <chrono> and <iostream>, -O0" more -O0 ""
show "declarations, -O0" declarations -O0 0.33
show "implementation, -O0" implementation -O0 2.0
show "implementation, -O2" implementation -O2 4.9
show "the same without files and thread, -O2" core -O2 ""
size -A "$tmp/implementation-O2.o" | awk '$1 ~ /^\.text/ {bytes += $2}
    END {printf "%-44s %8.0f kB, budget 350 kB\n", "implementation, -O2, .text", bytes / 1000}'
size "$tmp/implementation-O2.o" | awk 'NR == 2 {
    printf "%-44s %8.0f kB\n", "the same with constants, unwinding tables", $1 / 1000}'
