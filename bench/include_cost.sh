#!/usr/bin/env bash
# What the header costs to compile: CPU seconds of the declarations (every includer pays them) and
# of the implementation (one file pays it), and the size of its code. Minimum, median and maximum of
# the repeats; the references are the standard headers that the declarations include, and the same
# with <chrono> and <iostream>.
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

measure() {  # label, source, flags
    local label=$1 source=$2 i
    shift 2
    : >"$tmp/times"
    for ((i = 0; i < repeats; i++)); do
        TIMEFORMAT='%U %S'
        { time "$cxx" -std=c++17 "$@" -I"$here" -c "$tmp/$source.cpp" -o "$tmp/$source.o"; } \
            2>>"$tmp/times"
    done
    awk '{print $1 + $2}' "$tmp/times" | sort -n | awk -v label="$label" '
        {t[NR] = $1}
        END {printf "%-44s %8.2f %8.2f %8.2f\n", label, t[1], t[int((NR + 1) / 2)], t[NR]}'
}

printf '%-44s %8s %8s %8s  CPU seconds, %s\n' "compile" min median max "$("$cxx" -dumpversion)"
measure "standard headers of the declarations, -O0" standard -O0
measure "the same, <chrono> and <iostream>, -O0" more -O0
measure "declarations, -O0" declarations -O0
measure "implementation, -O0" implementation -O0
measure "implementation, -O2" implementation -O2
size "$tmp/implementation.o" | awk -v label="implementation, -O2, .text" '
    NR == 2 {printf "%-44s %8.0f kB\n", label, $1 / 1000}'
