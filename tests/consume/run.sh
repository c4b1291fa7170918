#!/usr/bin/env bash
# Uses the header in the ways that its users do, and in those that must not work.
#
#     tests/consume/run.sh SRC_DIR [CXX]
#
# SRC_DIR holds coord.hpp. Nothing is written outside a temporary directory. The implementation
# takes seconds to compile and the rest does not, so it is compiled once for each way of compiling
# it, two at a time; everything else links those objects.
set -u

src=$(cd "${1:?usage: run.sh SRC_DIR [CXX]}" && pwd) || exit 2
cxx=${2:-${CXX:-c++}}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/coord-consume.XXXXXX") || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
cd "$tmp" || exit 2

# The builder's flags are not this test's.
unset CXXFLAGS CPPFLAGS LDFLAGS CMAKE_GENERATOR

strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"
failures=0

pass() { printf 'ok      %-24s %s\n' "$1" "${2:-}"; }
fail() {
    printf 'FAILED  %-24s %s\n' "$1" "$2"
    [ -s "${3:-}" ] && sed 's/^/        /' "$3" | tail -40
    failures=$((failures + 1))
}

# A flag for a standard, under either of its names; nothing if the compiler has not got it.
std_flag() {
    local flag
    for flag in "$@"; do
        if "$cxx" "-std=$flag" -fsyntax-only -x c++ /dev/null 2>/dev/null; then
            echo "-std=$flag"
            return
        fi
    done
}
std17=-std=c++17
std20=$(std_flag c++20 c++2a)
std23=$(std_flag c++23 c++2b)

# -------------------------------------------------------------------------------------------------
# Objects. `object NAME SOURCE FLAGS` leaves NAME.o, or NAME.log with the reason why not.

object() {
    local name=$1 source=$2
    shift 2
    "$cxx" -O0 "$@" -I"$src" -c "$here/$source" -o "$name.o" >"$name.log" 2>&1
}

# Each line is one compilation: name, source, flags. The expensive ones first. What the newer
# standards make of the implementation is seen where it is compiled in another way as well.
compilations() {
    echo "impl17 implementation.cpp $std17 $strict"
    echo "unity unity.cpp $std17 $strict"
    echo "impl_none implementation.cpp ${std20:-$std17} $strict -fno-exceptions -fno-rtti"
    echo "hostile hostile_macros.cpp $std17 $strict"
    echo "impl_audit implementation.cpp ${std23:-$std17} $strict -DCOORD_AUDIT"
    local suffix std
    for suffix in 17 20 23; do
        std=std$suffix
        [ -n "${!std}" ] || continue
        echo "consumer$suffix consumer.cpp ${!std} $strict"
        echo "other$suffix other.cpp ${!std} $strict"
    done
    # NDEBUG in one of them: what a user's other flags say must change nothing.
    echo "other_ndebug other.cpp $std17 $strict -DNDEBUG -O2"
    echo "consumer_none consumer.cpp $std17 $strict -fno-exceptions -fno-rtti"
    echo "other_none other.cpp $std17 $strict -fno-exceptions -fno-rtti"
    echo "consumer_audit consumer.cpp ${std23:-$std17} $strict -DCOORD_AUDIT"
    echo "other_audit other.cpp $std17 $strict -DCOORD_AUDIT"
    local clang
    clang=$(command -v clang++)
    if [ -n "$clang" ]; then
        echo "globals implementation.cpp @$clang $std17 $strict -Wglobal-constructors"
        echo "globals_other other.cpp @$clang $std17 $strict -Wglobal-constructors"
    fi
}

compile_line() {
    local name=$1 source=$2
    shift 2
    if [[ ${1:-} == @* ]]; then
        local cxx=${1#@}
        shift
        set -- -fsyntax-only "$@"
    fi
    object "$name" "$source" "$@" && : >"$name.done"
}

# The add_subdirectory build runs beside the compilations; find_package uses what it has compiled.
cmake_consumers() {
    command -v cmake >/dev/null || return 3
    local generator=()
    command -v ninja >/dev/null && generator=(-G Ninja)
    local common=("${generator[@]}" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_CXX_FLAGS=-O0)
    cmake -S "$here/add_subdirectory" -B sub "${common[@]}" -DCOORD_SOURCE_DIR="$src" \
        -DCMAKE_INSTALL_PREFIX="$tmp/prefix" &&
        cmake --build sub && ./sub/consumer && : >add_subdirectory.done &&
        cmake --install sub &&
        version=$(sed -n 's/^# *define COORD_VERSION_M[AI][JN]OR *//p' "$src/coord.hpp" |
            tr -s '[:space:]' . | sed 's/\.$//') &&
        cmake -S "$here/find_package" -B pkg "${common[@]}" -DCMAKE_PREFIX_PATH="$tmp/prefix" \
            -DCOORD_WANTED="$version" && cmake --build pkg && ./pkg/consumer &&
        ! cmake -S "$here/find_package" -B wrong "${common[@]}" \
            -DCMAKE_PREFIX_PATH="$tmp/prefix" -DCOORD_WANTED=99 >/dev/null 2>&1 &&
        : >find_package.done
}

running=0
start() {
    if [ "$running" -ge 2 ]; then
        wait -n
        running=$((running - 1))
    fi
    "$@" &
    running=$((running + 1))
}

start cmake_consumers >cmake.log 2>&1
while read -r line; do
    # shellcheck disable=SC2086
    start compile_line $line
done < <(compilations)
wait

# -------------------------------------------------------------------------------------------------
# Judgements

# The objects are there, link and run.
must_run() {
    local what=$1 o
    shift
    for o in "$@"; do
        [ -e "$o.done" ] || { fail "$what" "$o does not compile" "$o.log"; return; }
    done
    if ! "$cxx" "${@/%/.o}" -o "$what" >"$what.log" 2>&1; then
        fail "$what" "does not link" "$what.log"
    elif ! timeout 60 "./$what" >"$what.log" 2>&1; then
        fail "$what" "does not run" "$what.log"
    else
        pass "$what" "$(tail -1 "$what.log")"
    fi
}

# The objects are there, do not link, and the linker's reason is the expected one.
must_not_link() {
    local what=$1 reason=$2 o
    shift 2
    for o in "$@"; do
        [ -e "$o.o" ] || { fail "$what" "$o does not compile" "$o.log"; return; }
    done
    if "$cxx" "${@/%/.o}" -o "$what" >"$what.log" 2>&1; then
        fail "$what" "links, and must not"
    elif ! grep -Eq "$reason" "$what.log"; then
        fail "$what" "does not link, but for another reason" "$what.log"
    else
        pass "$what" "does not link"
    fi
}

must_compile() {
    if [ -e "$2.done" ]; then pass "$1"; else fail "$1" "does not compile" "$2.log"; fi
}

must_run two_tu impl17 consumer17 other17
must_run header_twice impl17 consumer17 other17
must_run ndebug_in_one_tu impl17 consumer17 other_ndebug
must_run unity unity
must_run hostile_macros hostile consumer17 other17
must_run no_exceptions_no_rtti impl_none consumer_none other_none
[ -n "$std20" ] && must_run std20 impl_none consumer20 other20
must_run std17 impl17 consumer17 other17
for suffix in 20 23; do
    std=std$suffix
    if [ -n "${!std}" ]; then
        must_run "std17_with_std$suffix" impl17 "consumer$suffix" other17
    else
        echo "skipped std$suffix: $cxx has not got it"
    fi
done
must_run audit_std23 impl_audit consumer_audit other_audit
must_not_link implementation_forgotten 'undefined (reference|symbol)' consumer17 other17
cp impl17.o impl17_again.o 2>/dev/null
must_not_link implementation_doubled 'multiple definition|duplicate symbol' \
    impl17 impl17_again consumer17 other17
must_not_link audit_mismatch 'undefined (reference|symbol)' impl17 consumer17 other_audit
must_not_link audit_mismatch_reversed 'undefined (reference|symbol)' \
    impl_audit consumer17 other_audit
if command -v clang++ >/dev/null; then
    must_compile global_constructors globals
    must_compile global_constructors_other globals_other
else
    echo "skipped global_constructors: no clang++"
fi
if command -v cmake >/dev/null; then
    for what in add_subdirectory find_package; do
        if [ -e "$what.done" ]; then pass "$what"; else fail "$what" "" cmake.log; fi
    done
else
    echo "skipped add_subdirectory, find_package: no cmake"
fi

if [ "$failures" -ne 0 ]; then
    echo "$failures failed ($cxx)"
    exit 1
fi
echo "all passed ($cxx) in ${SECONDS}s"
