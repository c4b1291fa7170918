#!/usr/bin/env python3
"""Kills, starves and restarts a replica on files, on the files of this system.

    run.py WRITER                  everything: each call of each kind, each fault
    run.py WRITER --every=61 -j2   one in 61 of them, two at a time: what CTest runs
    run.py WRITER --only=kill      one part: kill, error, short, full, lock (may be repeated)
    run.py WRITER --work=DIR       where the directories are made (default: a temporary one)

WRITER is the program of writer.cpp; strace puts the faults in. There are two undisturbed runs, whose
calls are counted first: the birth of a storage with its first writes, and the recovery of one whose
process was killed in the middle of a write, with more writes after it. Then, for each k and each
kind of call that changes something:

    kill    SIGKILL before the k-th call
    error   the k-th call fails with EIO, ENOSPC or EINTR (EINTR: of the kinds that can)
    short   the k-th pwrite writes a part, and goes on, finds the disk full, or is killed: a torn
            write, as it is on the disk

Where the process must end it has to end by name, with nothing acknowledged after; where there is
only no room for a snapshot or for the next segment it has to go on. After each the writer is started
again without faults. It has to open, to have at least the writes that were acknowledged and at most
those that were asked for, with the right contents and nothing else, and to go on.

    full    a file system of 64 kB in memory: filled, read, a node removed, freed, written again,
            filled again, killed, opened while it is full, enlarged, written again
    lock    a second process on the same directory, before and after the first is killed

kill -9 does not lose what the system has in memory; simulated_disk.hpp does that part. Exit status:
0 all is well, 1 something is not, 77 nothing of it can be done here (no strace, or no right to).
"""

import argparse
import collections
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

FIRST_LAST = 90     # writes of the birth
SECOND_LAST = 130   # of the recovery
TIMEOUT_S = 120
KINDS = ["openat", "fallocate", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "mkdir",
         "ftruncate", "renameat", "renameat2", "unlinkat"]
READS = ["pread64", "getdents64", "newfstatat", "flock"]  # fail, but change nothing: not for kill
INTERRUPTIBLE = ["openat", "fallocate", "pwrite64", "pread64", "fdatasync", "fsync"]
SKIPPED = 77


class Run:
    """One life of the writer, and what it said."""

    def __init__(self, arguments, fault=None, trace=None):
        self.command = list(arguments)
        if fault or trace:
            kinds = fault.split(":")[0] if fault else ",".join(KINDS + READS)
            strace = ["strace", "-qq", "-y", "-f", "-e", "trace=" + kinds, "-o",
                      trace or "/dev/null"]
            if fault:
                strace += ["-e", "inject=" + fault]
            if not fault or "signal=" not in fault:
                strace.append("--seccomp-bpf")  # quicker; but it puts no signals in
            self.command = strace + self.command
        done = subprocess.run(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
        self.code = done.returncode
        self.error = done.stderr.decode(errors="replace")
        self.lines = done.stdout.decode(errors="replace").splitlines()

    def numbers(self, word):
        return [int(line.split()[1]) for line in self.lines if line.startswith(word + " ")]

    def has(self):
        return self.numbers("has")[0] if self.numbers("has") else 0

    def acked(self):
        return max(self.numbers("acked") + self.numbers("has") + [0])

    def asked(self):
        return max(self.numbers("asked") + self.numbers("has") + [0])

    def text(self):
        return "%s: exit %d: %s %s" % (" ".join(self.command), self.code,
                                       " / ".join(self.lines[-3:]), self.error[-300:])


Call = collections.namedtuple("Call", "kind number path")  # number: the k of its kind, from 1


def calls_of(trace, directory):
    """The calls of a run that touch the directory, and not the loader's files."""
    counts = collections.Counter()
    calls = []
    with open(trace, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = re.match(r"\d+ +(\w+)\((.*)", line)
            if not found:
                continue
            kind = found.group(1)
            counts[kind] += 1
            path = re.search(re.escape(directory) + r"[^\">]*", found.group(2))
            if path:
                calls.append(Call(kind, counts[kind], path.group(0)[len(directory):]))
    return calls


class Scenario:
    """A directory to start from, and how far to write."""

    def __init__(self, name, writer, work, start, last):
        self.name, self.writer, self.work, self.start, self.last = name, writer, work, start, last
        self.acked = self.asked = 0     # by the lives before
        directory = self.fresh("count")
        trace = directory + ".trace"
        first = Run([writer, directory, str(last)], trace=trace)
        if first.code != 0 or not first.lines or first.lines[-1] != "done":
            raise RuntimeError("the undisturbed run: " + first.text())
        self.calls = calls_of(trace, directory)
        again = self.fresh("count")
        Run([writer, again, str(last)], trace=trace)
        if calls_of(trace, again) != self.calls:
            raise RuntimeError("two undisturbed runs differ: k means nothing")
        self.remove(directory)

    def fresh(self, name):
        directory = os.path.join(self.work, "%s-%s" % (self.name, name))
        self.remove(directory)
        if self.start:
            shutil.copytree(self.start, directory)
        return directory

    @staticmethod
    def remove(directory):
        shutil.rmtree(directory, ignore_errors=True)

    def count(self, kind):
        return [call for call in self.calls if call.kind == kind]


def expected_codes(fault, call, scenario):
    """How the writer may end: 0 done, 3 refused, 4 failed."""
    path = call.path
    if fault == "EINTR":
        # Of a sync nobody knows what it did; the others did nothing, and are done again.
        return (3, 4) if call.kind in ("fdatasync", "fsync") else (0,)
    if fault == "ENOSPC":
        is_snapshot = path.startswith("/snapshot.tmp")
        is_allocation = path.startswith("/spare.") and call.kind in ("openat", "fallocate")
        is_for_writing = call.kind not in ("pread64", "unlink")
        if is_snapshot and is_for_writing:
            return (0,)
        if is_allocation:
            return (0, 3, 4) if call.kind == "openat" or not scenario.start else (0,)
        return (3, 4) if call.kind != "getdents64" else (0, 3, 4)
    if call.kind == "newfstatat" and path.startswith("/spare."):
        return (0,)  # whatever it is, it is no segment: it is removed
    return (3, 4)


def check(scenario, run, codes, directory):
    """What must hold after a disturbed life and the undisturbed one behind it. RETURNS a text."""
    wrong = [line for line in run.lines if line.startswith("wrong")]
    if wrong or run.code not in codes:
        return "expected exit %s: %s" % (codes, run.text())
    if run.code == 3 and not re.match(r"refused .+", run.lines[-1]):
        return "refused without a reason: " + run.text()
    if run.code == 4 and not re.match(r"failed .+", run.lines[-1]):
        return "failed without a reason: " + run.text()
    acked = max(scenario.acked, run.acked())
    asked = max(scenario.asked, run.asked())
    again = Run([scenario.writer, directory, str(scenario.last + 12)])
    if again.code != 0 or again.lines[-1] != "done":
        return "after %s, the next start: %s" % (run.text(), again.text())
    if not acked <= again.has() <= asked:
        return "acknowledged %d, asked %d, there %d: after %s" % (acked, asked, again.has(),
                                                                  run.text())
    if again.acked() != max(scenario.last + 12, again.has()):
        return "it did not go on: " + again.text()
    return ""


def job_of_strace(scenario, index, call, fault, codes):
    directory = scenario.fresh("%s-%s-%d" % (fault, call.kind, index))
    inject = "signal=SIGKILL" if fault == "kill" else "error=" + fault
    run = Run([scenario.writer, directory, str(scenario.last), "--patient"],
              fault="%s:%s:when=%d" % (call.kind, inject, call.number))
    wrong = check(scenario, run, codes, directory)
    scenario.remove(directory)
    what = "%s, %s of %s number %d on %s" % (scenario.name, fault, call.kind, call.number,
                                             call.path)
    return wrong and what + ": " + wrong, run.code


def job_of_short(scenario, index, call, size, then, codes):
    directory = scenario.fresh("short%d-%s-%d" % (size, then, index))
    run = Run([scenario.writer, directory, str(scenario.last), "--patient",
               "--short=%d,%d,%s" % (index + 1, size, then)])
    wrong = check(scenario, run, codes, directory)
    scenario.remove(directory)
    what = "%s, pwrite number %d on %s writes %d, %s" % (scenario.name, index + 1, call.path, size,
                                                         then)
    return wrong and what + ": " + wrong, run.code


def strace_jobs(scenario, part):
    for kind in KINDS if part == "kill" else KINDS + READS:
        for index, call in enumerate(scenario.count(kind)):
            if part == "kill":
                # strace reports a child that was killed as killed itself, a shell as 128 + 9.
                yield ("kill " + kind, job_of_strace, (scenario, index, call, "kill", (-9, 137)))
                continue
            for error in ("EIO", "ENOSPC", "EINTR"):
                if error == "EINTR" and kind not in INTERRUPTIBLE:
                    continue
                if error == "ENOSPC" and kind in READS:
                    continue
                codes = expected_codes(error, call, scenario)
                yield (error + " " + kind, job_of_strace, (scenario, index, call, error, codes))


def short_jobs(scenario):
    for index, call in enumerate(scenario.count("pwrite64")):
        for size in (1, -2, -1):
            for then in ("go", "full", "kill"):
                codes = {"go": (0,), "kill": (-9,)}.get(then)
                if not codes:
                    # The piece that a snapshot is short of may be the next call's instead.
                    codes = (0,) if call.path.startswith("/snapshot") else (3, 4)
                yield ("short " + then, job_of_short, (scenario, index, call, size, then, codes))


def run_jobs(jobs, every, at_once):
    """RETURNS what went wrong; prints how many of each kind there were and how they ended."""
    totals, done, ends, wrong = collections.Counter(), collections.Counter(), {}, []
    chosen = []
    for place, job in enumerate(jobs):
        totals[job[0]] += 1
        if place % every == every // 2:
            chosen.append(job)
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        futures = [(name, pool.submit(job, *arguments)) for name, job, arguments in chosen]
        for name, future in futures:
            text, code = future.result()
            done[name] += 1
            ends.setdefault(name, collections.Counter())[code] += 1
            if text:
                wrong.append(text)
                print("WRONG: " + text, flush=True)
    for name in totals:
        print("  %-18s %5d of %5d; exit codes %s" % (
            name, done[name], totals[name],
            ", ".join("%d: %d" % pair for pair in sorted(ends.get(name, {}).items()))))
    return wrong


def recovery_scenario(birth, work):
    """Starts where a process was killed in the middle of a write."""
    start = birth.fresh("killed")
    log_writes = [i for i, c in enumerate(birth.count("pwrite64")) if c.path.startswith("/log.")]
    killed = Run([birth.writer, start, str(FIRST_LAST),
                  "--short=%d,-2,kill" % (log_writes[len(log_writes) * 5 // 6] + 1)])
    recovery = Scenario("recovery", birth.writer, work, start, SECOND_LAST)
    recovery.acked, recovery.asked = killed.acked(), killed.asked()
    return recovery


# -- Locks and a full disk ------------------------------------------------------------------------

class Talk:
    """A writer that goes on while the runner looks."""

    def __init__(self, arguments):
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines = []

    def read_until(self, word):
        for line in self.process.stdout:
            self.lines.append(line.decode().strip())
            if self.lines[-1].startswith(word):
                return self.lines[-1]
        return ""

    def tell(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.lines += [line.decode().strip() for line in self.process.stdout]
        self.process.wait()

    def newest(self, word):
        return max([int(l.split()[1]) for l in self.lines if l.startswith(word + " ")] + [0])


def lock_part(writer, work):
    directory = os.path.join(work, "lock")
    if Run([writer, directory, "10"]).code != 0:
        return ["lock: the first writes"]
    wrong = []
    first = Talk([writer, directory, "10", "--hold"])
    first.read_until("has")
    second = Run([writer, directory, "20"])
    if second.code != 3 or "lock" not in second.lines[-1]:
        wrong.append("lock: the second process: " + second.text())
    first.kill()
    third = Run([writer, directory, "20"])
    if third.code != 0 or third.has() != 10:
        wrong.append("lock: after the first was killed: " + third.text())
    print("  lock: refused while the first lives (%s), opened after kill -9" % second.lines[-1])
    return wrong


def full_part(writer, mounted):
    """On a small file system. RETURNS what went wrong."""
    directory, filler = os.path.join(mounted, "data"), os.path.join(mounted, "filler")
    with open(filler, "wb") as out:
        out.write(b"f" * 12288)
    writing = Talk([writer, directory, "100000", "--wait"])
    fulls = []
    for name in ("filled", "filled again"):
        if not writing.read_until("full"):
            return ["full: %s: the writer ended: %s" % (name, writing.lines[-2:])]
        fulls.append(writing.newest("acked"))
        if name == "filled":
            os.remove(filler)
        writing.tell() if name == "filled" else writing.kill()
    free = os.statvfs(mounted)
    acked, asked = writing.newest("acked"), writing.newest("asked")
    if fulls[1] <= fulls[0]:
        return ["full: nothing was written after there was room again"]
    again = Talk([writer, directory, "0", "--hold"])
    again.read_until("has")
    there = again.newest("has")
    again.kill()
    print("  full: refused after %d writes, and %d; %d blocks left; %d there" % (
        fulls[0], fulls[1], free.f_bavail, there))
    if not acked <= there <= asked:
        return ["full: acknowledged %d, asked %d, there %d: %s" % (acked, asked, there,
                                                                   again.lines)]
    subprocess.run(["mount", "-o", "remount,size=1m", mounted], check=True)
    last = Run([writer, directory, str(asked + 40)])
    if last.code != 0 or last.has() != there:
        return ["full: on a larger file system: " + last.text()]
    return []


def full_inside(writer):
    """In a mount namespace of its own."""
    with tempfile.TemporaryDirectory() as mounted:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mounted],
                          check=False).returncode != 0:
            return SKIPPED
        try:
            wrong = full_part(writer, mounted)
        finally:
            subprocess.run(["umount", "-l", mounted], check=False)
    for text in wrong:
        print("WRONG: " + text)
    return 1 if wrong else 0


def full_outside(writer):
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--mount"] + own
    try:
        code = SKIPPED
        if subprocess.run(command + ["true"], check=False,
                          stderr=subprocess.DEVNULL).returncode == 0:
            again = [sys.executable, "-B", os.path.abspath(__file__), writer, "--inside"]
            code = subprocess.run(command + again, timeout=TIMEOUT_S, check=False).returncode
    except OSError:
        code = SKIPPED
    except subprocess.TimeoutExpired:
        return ["full: it hangs"]
    if code == SKIPPED:
        print("  full: SKIPPED, no right to mount a file system here")
    return ["full"] if code not in (0, SKIPPED) else []


def can_inject():
    try:
        done = subprocess.run(["strace", "-qq", "--seccomp-bpf", "-f", "-o", "/dev/null", "-e",
                               "trace=getcwd", "-e", "inject=getcwd:error=EIO:when=1", "true"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return done.returncode == 0
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("writer")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", action="append",
                        choices=["kill", "error", "short", "full", "lock"])
    parser.add_argument("--work")
    parser.add_argument("-j", type=int, default=1)
    parser.add_argument("--inside", action="store_true")
    options = parser.parse_args()
    writer = os.path.abspath(options.writer)
    if options.inside:
        return full_inside(writer)
    parts = options.only or ["kill", "error", "short", "full", "lock"]
    if not can_inject():
        print("SKIPPED: strace is not here, or may not trace (Debian: strace; ptrace allowed)")
        return SKIPPED
    work = options.work or tempfile.mkdtemp(prefix="coord-disk-")
    os.makedirs(work, exist_ok=True)
    wrong = []
    try:
        birth = Scenario("birth", writer, work, None, FIRST_LAST)
        for scenario in (birth, recovery_scenario(birth, work)):
            counts = collections.Counter(call.kind for call in scenario.calls)
            print("%s, to write %d: %s" % (scenario.name, scenario.last, ", ".join(
                "%s %d" % (kind, counts[kind]) for kind in KINDS + READS if counts[kind])))
            for part in parts:
                if part in ("kill", "error"):
                    wrong += run_jobs(strace_jobs(scenario, part), options.every, options.j)
                if part == "short":
                    wrong += run_jobs(short_jobs(scenario), options.every, options.j)
        if "lock" in parts:
            wrong += lock_part(writer, work)
        if "full" in parts:
            wrong += full_outside(writer)
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)
    print("%d wrong" % len(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
