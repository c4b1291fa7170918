#!/usr/bin/env python3
"""Puts deliberate mistakes into coord.hpp, one at a time, and expects the tests to notice each.

A mistake is an entry of tests/bugs/*.txt:

    # Comments and blank lines may stand between entries.
    name: ack_before_durable
    promise: P2 no acknowledged write is lost
    find: exact text, a part of a line or several lines
        |     the lines after the first, as they are written, after four blanks and "| "
    replace: what stands there instead; nothing after the colon removes the text
        |     more lines
    expect: coord_tests -ts=07*, sim_random --seeds=300

`find` must occur in coord.hpp exactly once. An entry may have several pairs of find and replace,
which are applied in order. `expect` names commands that are tried in order until one fails, as it
should: `coord_tests` or `sim_NAME` with arguments, separated by a comma and a blank; the line may be
repeated.

A command is also run on the unchanged header first: a test that is red anyway catches nothing.
A tripped assertion and a crash count as caught. One that only ran out of time is called hung, and
counted apart: it may be slowness of the machine. Exit status 1: a mistake was missed, does not
compile, or its text was not found.

    run.py                     all mistakes
    run.py --list              names, and where they were found in the header
    run.py --match-only        look for the texts only, compile nothing
    run.py --compile-only      see whether each mistaken header still compiles, run nothing
    run.py --only NAME         one (the option may be repeated; * is allowed)
    run.py --slice N           N of them, evenly spread
    run.py -j2                 two at a time
    run.py --work DIR          keep objects of the tests in DIR for the next run
    run.py --built FILE        use what a build has made of the unchanged header: in each line a
                               program and its objects, but the implementation's, with semicolons
                               between. Of the mistakes in the header's Part One, which wants all
                               tests compiled anew, a slice has none then.
"""

import argparse
import concurrent.futures
import fnmatch
import glob
import hashlib
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FLAGS = ["-std=c++17", "-O1", "-w"]
UNIT_FLAGS = ["-O0", "-DDOCTEST_CONFIG_SUPER_FAST_ASSERTS"]
MEMORY_MAX = 4 << 30
TIMEOUT = "ran out of time"


class Mistake:
    def __init__(self, name, place):
        self.name = name
        self.place = place  # file:line of the entry
        self.promise = ""
        self.edits = []  # pairs of find, replace
        self.expect = []


class Broken(Exception):
    """An entry, or a mistaken header, that cannot be used."""


# -------------------------------------------------------------------------------------------------
# Reading


def parse(path):
    """The mistakes of one file."""
    mistakes = []
    fields = []  # key, value, line
    with open(path, encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\n")
            more = re.match(r" {4}\|(?: (.*)|)$", line)
            field = re.match(r"(name|promise|find|replace|expect):(?: (.*)|)$", line)
            if more and fields and fields[-1][0] in ("find", "replace"):
                key, value, start = fields[-1]
                fields[-1] = (key, value + "\n" + (more.group(1) or ""), start)
            elif field:
                fields.append((field.group(1), field.group(2) or "", number))
            elif line.strip() and not line.startswith("#"):
                raise Broken(f"{path}:{number}: not a field: {line}")
    for key, value, number in fields:
        place = f"{os.path.relpath(path, ROOT)}:{number}"
        if key == "name":
            mistakes.append(Mistake(value.strip(), place))
            continue
        if not mistakes:
            raise Broken(f"{place}: the first field must be a name")
        mistake = mistakes[-1]
        if key == "promise":
            mistake.promise = value.strip()
        elif key == "expect":
            mistake.expect += [c.strip() for c in value.split(", ") if c.strip()]
        elif key == "find":
            mistake.edits.append([value, None])
        elif mistake.edits and mistake.edits[-1][1] is None:
            mistake.edits[-1][1] = value
        else:
            raise Broken(f"{place}: replace without find")
    for mistake in mistakes:
        complete = mistake.name and mistake.promise and mistake.edits and mistake.expect
        if not complete or any(r is None or not f.strip() for f, r in mistake.edits):
            raise Broken(f"{mistake.place}: {mistake.name}: a field is missing or empty")
        if any(f == r for f, r in mistake.edits):
            raise Broken(f"{mistake.place}: {mistake.name}: replace equals find")
    return mistakes


def read_all(paths):
    mistakes = []
    for path in paths:
        mistakes += parse(path)
    names = [m.name for m in mistakes]
    for name in sorted(set(n for n in names if names.count(n) > 1)):
        raise Broken(f"two mistakes are called {name}")
    return mistakes


def apply(mistake, text):
    """The mistaken header, and the line of the first change."""
    first = None
    for find, replace in mistake.edits:
        count = text.count(find)
        if count != 1:
            head = find.strip("\n").split("\n")[0].strip()
            raise Broken(f"{mistake.place}: the text occurs {count} times, not once: {head}")
        at = text.index(find)
        line = text.count("\n", 0, at) + 1
        first = line if first is None else min(first, line)
        text = text[:at] + replace + text[at + len(find):]
    return text, first


def part_two_at(text):
    match = re.search(r"^#\s*if.*\bCOORD_IMPLEMENTATION\b", text, re.M)
    return match.start() if match else len(text)


# -------------------------------------------------------------------------------------------------
# Building


class Builder:
    def __init__(self, cxx, flags, work, header, built):
        self.cxx = cxx
        self.built = built
        self.identity = os.path.realpath(shutil.which(cxx) or cxx)
        self.flags = flags
        self.work = work
        self.part_one = header[:part_two_at(header)]
        self.locks = {}
        self.lock = threading.Lock()
        self.shared = b"".join(self.read(p) for p in sorted(glob.glob(f"{ROOT}/tests/**/*.hpp",
                                                                     recursive=True)))

    @staticmethod
    def read(path):
        with open(path, "rb") as file:
            return file.read()

    def run(self, command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", check=False)
        if done.returncode != 0:
            errors = [l for l in done.stdout.split("\n") if "error" in l or "undefined" in l]
            raise Broken("does not compile: " + (errors or done.stdout.split("\n"))[0].strip())

    def sources(self, program):
        if program == "coord_tests":
            found = sorted(glob.glob(f"{ROOT}/tests/[0-9][0-9]_*.cpp"))
            found += sorted(glob.glob(f"{ROOT}/tests/paper/*.cpp"))
            return [f"{ROOT}/tests/main.cpp"] + found  # tidy.cpp judges the text, not what it does
        path = f"{ROOT}/tests/sim/{program[4:]}.cpp"
        if not program.startswith("sim_") or not os.path.exists(path):
            raise Broken(f"no such program: {program}")
        return [path]

    def object(self, source, header, include):
        """The object of a test; it depends on the header's Part One only, so it is often there."""
        part_one = header[:part_two_at(header)]
        key = hashlib.sha256()
        for piece in (self.identity.encode(), " ".join(self.flags).encode(), self.shared,
                      part_one.encode(), source.encode(), self.read(source)):
            key.update(hashlib.sha256(piece).digest())
        home = self.work if part_one == self.part_one else include  # the latter is soon removed
        out = os.path.join(home, f"{os.path.basename(source)}.{key.hexdigest()[:20]}.o")
        with self.lock:
            lock = self.locks.setdefault(out, threading.Lock())
        with lock:
            if not os.path.exists(out):
                tests = os.path.join(ROOT, "tests")
                partial = f"{out}.{os.getpid()}.part"
                # doctest's assertions take longer to optimise than to run; a simulation does not
                quick = [] if "sim" in source.split(os.sep) else UNIT_FLAGS
                self.run([self.cxx, *self.flags, *quick, f"-I{include}", f"-I{tests}",
                          f"-I{ROOT}/examples", f'-DCOORD_TEST_SOURCE_DIR="{ROOT}"', "-c", source,
                          "-o", partial])
                os.replace(partial, out)
            os.utime(out)
        return out

    def forget_old_objects(self):
        """In a kept directory, removes what no run has used for a day."""
        for path in glob.glob(f"{self.work}/*.o"):
            if time.time() - os.path.getmtime(path) > 86400:
                os.remove(path)

    def implementation(self, header, include, more=()):
        with open(f"{include}/coord.hpp", "w", encoding="ascii") as file:
            file.write(header)
        with open(f"{include}/implementation.cpp", "w", encoding="ascii") as file:
            file.write('#define COORD_IMPLEMENTATION\n#include "coord.hpp"\n')
        self.run([self.cxx, *self.flags, *more, f"-I{include}", "-c",
                  f"{include}/implementation.cpp", "-o", f"{include}/implementation.o"])

    def check(self, header, include):
        """Whether the implementation compiles, in a third of the time that it takes."""
        self.implementation(header, include, ["-fsyntax-only"])

    def link(self, program, header, include):
        out = f"{include}/{program}"
        if not os.path.exists(out):
            if program in self.built and header[:part_two_at(header)] == self.part_one:
                objects = self.built[program][1:]
            else:
                objects = [self.object(s, header, include) for s in self.sources(program)]
            self.run([self.cxx, *self.flags, *objects, f"{include}/implementation.o", "-pthread",
                      "-o", out])
        return out


# -------------------------------------------------------------------------------------------------
# Running


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_test(command, program, include, timeout):
    """(failed, why): the exit status, and the line of the output that says what went wrong."""
    arguments = shlex.split(command)[1:]
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        process = subprocess.Popen([program, *arguments], cwd=include, stdout=out,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   preexec_fn=limit, start_new_session=True)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True, TIMEOUT
        out.seek(0)
        text = out.read(4 << 20)
    if code == 0:
        nothing = re.search(r"test cases: +0 ", text)
        return False, "no test case ran" if nothing else ""
    why = blame(text)
    if code < 0:
        why = f"{signal.Signals(-code).name} {why}"
    return True, why


def blame(text):
    """The most telling line of a failed test's output."""
    lines = [l.strip() for l in text.split("\n") if l.strip()]
    asserted = [l for l in lines if re.search(r"assert", l, re.I) and "assertions:" not in l]
    error = next((i for i, l in enumerate(lines) if re.search(r"\bERROR: ", l)), None)
    if error is not None:
        cases = [l for l in lines[:error] if l.startswith("TEST CASE:")]
        case = cases[-1][10:].strip() if cases else ""
        crashed = "CRASHED" in lines[error] and asserted
        line = asserted[0] if crashed else lines[error].replace(ROOT + "/", "")
        return f'"{case}" {line}'
    if asserted:
        return asserted[0]
    telling = [l for l in lines if re.search(r"fail|violat|wrong|lost|differ|stuck|error", l, re.I)]
    return (telling or lines[-1:] or ["no output"])[0]


def try_mistake(mistake, header, builder, patience):
    """(outcome, detail): caught, hung, missed or broken."""
    include = tempfile.mkdtemp(prefix=f"{mistake.name}.", dir=builder.work)
    try:
        mistaken, _ = apply(mistake, header)
        builder.implementation(mistaken, include)
        hung = None
        for command in mistake.expect:
            program = builder.link(command.split()[0], mistaken, include)
            failed, why = run_test(command, program, include, patience[command])
            if failed and why != TIMEOUT:
                return "caught", f"{command}: {why}"
            hung = command if failed else hung
        return ("hung", hung) if hung else ("missed", "by " + ", ".join(mistake.expect))
    except Broken as broken:
        return "broken", str(broken)
    finally:
        shutil.rmtree(include, ignore_errors=True)


def compile_all(mistakes, header, builder, jobs):
    def one(mistake):
        with tempfile.TemporaryDirectory(dir=builder.work) as include:
            try:
                builder.check(apply(mistake, header)[0], include)
                return 0
            except Broken as broken:
                print(f"BROKEN  {mistake.place}: {mistake.name}: {broken}", flush=True)
                return 1

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        bad = sum(pool.map(one, mistakes))
    print(f"{len(mistakes)} mistakes compiled, {bad} broken")
    return 1 if bad else 0


def baseline(mistakes, header, builder, jobs, timeout):
    """Runs every command on the unchanged header. Returns those of no use, with the reason; and the
    patience that each deserves: a mistake that makes a command ten times slower is caught."""
    commands = sorted(set(c for m in mistakes for c in m.expect))
    include = os.path.join(builder.work, "unchanged")
    shutil.rmtree(include, ignore_errors=True)
    os.makedirs(include)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        programs = sorted(set(c.split()[0] for c in commands) - set(builder.built))
        if programs:
            implementation = pool.submit(builder.implementation, header, include)
            sources = sorted(set(s for p in programs for s in builder.sources(p)))
            implementation.result()
            list(pool.map(lambda s: builder.object(s, header, include), sources))
            list(pool.map(lambda p: builder.link(p, header, include), programs))

        def one(command):
            start = time.monotonic()
            name = command.split()[0]
            program = builder.built[name][0] if name in builder.built else f"{include}/{name}"
            failed, why = run_test(command, program, include, timeout)
            return failed, why, min(timeout, 10 + 10 * (time.monotonic() - start))

        results = dict(zip(commands, pool.map(one, commands)))
    red = {c: why or "fails" for c, (failed, why, _) in results.items() if failed or why}
    return red, {c: round(patience) for c, (_, _, patience) in results.items()}


# -------------------------------------------------------------------------------------------------


def read_built(path):
    """Programs as a build has made them: name to path of the program and of its objects."""
    built = {}
    with open(path, encoding="utf-8") as file:
        for line in file.read().split("\n"):
            paths = [p for p in line.split(";") if p and not re.search(r"\btidy\.cpp\.", p)]
            if paths:
                built[os.path.basename(paths[0])] = paths
    for paths in built.values():
        for missing in (p for p in paths if not os.path.exists(p)):
            raise Broken(f"not built: {missing}")
    return built


def is_in_part_two(mistake, header):
    mistaken, _ = apply(mistake, header)
    return mistaken[:part_two_at(mistaken)] == header[:part_two_at(header)]


def select(mistakes, options, header):
    if options.only:
        chosen = [m for m in mistakes if any(fnmatch.fnmatch(m.name, o) for o in options.only)]
        if not chosen:
            raise Broken("no mistake is called " + ", ".join(options.only))
        return chosen
    if options.slice and options.built:
        mistakes = [m for m in mistakes if is_in_part_two(m, header)]
    if options.slice and options.slice < len(mistakes):
        step = len(mistakes) / options.slice
        return [mistakes[int(i * step)] for i in range(options.slice)]
    return mistakes


def list_all(mistakes, header, show):
    bad = 0
    for mistake in mistakes:
        try:
            _, line = apply(mistake, header)
        except Broken as broken:
            print(f"BROKEN  {mistake.name}: {broken}")
            bad += 1
            continue
        if show:
            print(f"{mistake.name:32} coord.hpp:{line:<6} {mistake.promise}")
    print(f"{len(mistakes)} mistakes, {bad} broken")
    return 1 if bad else 0


def check_all(mistakes, header, builder, options):
    started = time.monotonic()
    red, patience = baseline(mistakes, header, builder, options.jobs, options.timeout)
    for command, why in red.items():
        print(f"BROKEN  on the unchanged header: {command}: {why}")
    if red:
        return 1
    print(f"the unchanged header passes ({time.monotonic() - started:.0f} s)", flush=True)

    counts = {"caught": 0, "hung": 0, "missed": 0, "broken": 0}
    width = max((len(m.name) for m in mistakes), default=0)

    def one(mistake):
        start = time.monotonic()
        outcome, detail = try_mistake(mistake, header, builder, patience)
        seconds = time.monotonic() - start
        with builder.lock:
            counts[outcome] += 1
            good = outcome in ("caught", "hung")
            label = outcome if good else outcome.upper()
            print(f"{label:7} {seconds:5.1f} s  {mistake.name:{width}}  {detail[:240]}", flush=True)
            if not good:
                print(f"                 promise: {mistake.promise} ({mistake.place})", flush=True)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, mistakes))
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) +
          f", {time.monotonic() - started:.0f} s")
    return 0 if counts["missed"] == counts["broken"] == 0 else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cxx", default=os.environ.get("CXX", "c++"))
    parser.add_argument("--flags", default="", help="more flags for the compiler")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--match-only", action="store_true")
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--slice", type=int, metavar="N")
    parser.add_argument("-j", dest="jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=120,
                        help="seconds for one command at most; less where it is fast")
    parser.add_argument("--work", metavar="DIR")
    parser.add_argument("--built", metavar="FILE")
    parser.add_argument("files", nargs="*", help="default: tests/bugs/*.txt")
    options = parser.parse_args()

    work = options.work or tempfile.mkdtemp(prefix="coord-bugs.")
    os.makedirs(work, exist_ok=True)
    try:
        with open(f"{ROOT}/coord.hpp", encoding="ascii") as file:
            header = file.read()
        mistakes = read_all(options.files or sorted(glob.glob(f"{HERE}/*.txt")))
        mistakes = select(mistakes, options, header)
        if options.list or options.match_only:
            return list_all(mistakes, header, options.list)
        if not mistakes:
            print("no mistakes to try")
            return 0
        if list_all(mistakes, header, False):
            return 1
        built = read_built(options.built) if options.built else {}
        builder = Builder(options.cxx, FLAGS + shlex.split(options.flags), os.path.abspath(work),
                          header, built)
        if options.compile_only:
            return compile_all(mistakes, header, builder, options.jobs)
        builder.forget_old_objects()
        return check_all(mistakes, header, builder, options)
    except Broken as broken:
        print(f"BROKEN  {broken}")
        return 1
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
