#!/usr/bin/env python3
"""zkserver beside a real ZooKeeper 3.8, under the same load: bench/zookeeper.cpp.

    zookeeper.py BENCH ZKSERVER [--quick] [--seconds=S] [--repeats=N] [--servers=1,3]
                 [--cases=set,...] [--clients=1,16,64] [--flight=1,64] [--nodes=N] [--life]
                 [--warm=S] [--rest=S] [--directory=FOLDER] [--java=OPTION ...]

Prints tables for results.md. Both sides run on the loopback, with the same zoo.cfg, with fsync, in
the same folder, and take turns cell by cell; a cell is the median of its repeats. Before the first
cell each side has had writes and reads for --warm seconds: a Java compiles what runs often. --life
measures only what begins and ends: the first write after a start, after a killed leader, after a
restart with many nodes and after one more --rest seconds later, and resident memory; and beside each
table of throughput stands what the disk alone takes, which no write can be faster than. Without a
ZooKeeper, or with --quick, there is ours alone. Every process is ended by its id.
"""
import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/zkserver"))
from wire import free_port, word, zkserver, zookeeper  # noqa: E402

CASES = ("set", "get", "create", "mix", "lock", "watch")


class Side:
    """One server or three, of ours or of ZooKeeper's."""

    def __init__(self, given, name, directory, count):
        self.given, self.name = given, name
        peers = [(free_port(), free_port()) for _ in range(count)]
        lines = "".join("server.%d=127.0.0.1:%d:%d\n" % (i + 1, *ports)
                        for i, ports in enumerate(peers)) if count > 1 else ""
        self.servers = []
        for i in range(count):
            home = os.path.join(directory, "%s-%d-%d" % (name, count, i + 1))
            if name == "coord":
                server = zkserver(given.zkserver, home, lines)
            else:
                server = zookeeper(home, lines, java=given.java)
            os.makedirs(home + "/data", exist_ok=True)
            with open(home + "/data/myid", "w") as out:
                out.write("%d\n" % (i + 1))
            self.servers.append(server)

    def launch(self, server):
        """Starts a process, and does not wait. Returns when that was."""
        server.launch()
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def start(self):
        """Returns the seconds until the first write."""
        begun = [self.launch(server) for server in self.servers][0]
        return self.first(self.servers) - begun

    def stop(self, number=signal.SIGTERM):
        for server in self.servers:
            server.stop(number)

    def bench(self, what, servers, *more):
        ports = ",".join(str(server.port) for server in servers)
        said = subprocess.run([self.given.bench, what, "--ports=" + ports, *more], timeout=900,
                              stdout=subprocess.PIPE, text=True, check=True)
        return [float(each) for each in said.stdout.split()]

    def first(self, servers):
        return self.bench("first", servers)[0]

    def rss_mb(self):
        """The median of the servers'."""
        sizes = []
        for server in self.servers:
            with open("/proc/%d/status" % server.process.pid) as status:
                line = [line for line in status if line.startswith("VmRSS")][0]
            sizes.append(int(line.split()[1]) / 1024)
        return statistics.median(sizes)

    def leader(self):
        for server in self.servers:
            try:
                if "Mode: leader" in word(server.port, "srvr"):
                    return server
            except OSError:
                pass
        raise RuntimeError("nobody leads")


def sides(given, directory, count):
    made = [Side(given, "coord", directory, count)]
    if not given.alone:
        made.append(Side(given, "ZooKeeper", directory, count))
    return made


def ratio(ours, theirs, is_less_better=False):
    if theirs is None:
        return "-"
    return "%.1f" % (theirs / ours if is_less_better else ours / theirs)


def disk_alone(given, directory):
    """Prints what a write of 128 bytes and fdatasync take, in a file that has its size."""
    path = os.path.join(directory, "alone")
    spent = []
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, bytes(1024 * 1024), 0)
        os.fsync(file)
        end = time.perf_counter() + given.seconds
        while not spent or time.perf_counter() < end:
            begun = time.perf_counter()
            os.pwrite(file, b"x" * 128, len(spent) * 128 % (1024 * 1024))
            os.fdatasync(file)
            spent.append(1000 * (time.perf_counter() - begun))
    finally:
        os.close(file)
        os.unlink(path)
    spent.sort()
    print("\nwrite and fdatasync alone: median %.2f ms, 99th percentile %.2f" %
          (statistics.median(spent), spent[len(spent) * 99 // 100]))


def throughput(given, directory, count):
    disk_alone(given, directory)
    print("\n%s, operations a second (median, 99th percentile in ms)\n" %
          ("One server" if count == 1 else "%d servers" % count))
    print("| case | clients | in flight | coord | ZooKeeper | times | latency, part of |")
    print("|---|---|---|---|---|---|---|")
    both = sides(given, directory, count)
    try:
        for side in both:
            side.start()
            for case in CASES[:4]:
                if given.warm > 0:
                    side.bench(case, side.servers, "--clients=16", "--flight=64",
                               "--seconds=%g" % (given.warm / 5))
        for case in given.cases:
            for clients in given.clients:
                for flight in given.flight:
                    cell(given, both, case, clients, flight)
    finally:
        for side in both:
            side.stop()


def cell(given, both, case, clients, flight):
    found = {side.name: [] for side in both}
    for _ in range(given.repeats):
        for side in both:
            found[side.name].append(side.bench(
                case, side.servers, "--clients=%d" % clients, "--flight=%d" % flight,
                "--seconds=%g" % given.seconds))
    columns, medians = [], []
    for name in ("coord", "ZooKeeper"):
        rows = found.get(name)
        if rows is None:
            columns.append("-")
            medians.append((None, None))
            continue
        rate, half, most = (statistics.median(row[i] for row in rows) for i in range(3))
        columns.append("%s (%.2f, %.2f)" % (format(round(rate), ","), half, most))
        medians.append((rate, half))
    (ours, half), (theirs, their_half) = medians
    part = "-" if theirs is None else "%.2f" % (half / their_half)
    print("| %s | %d | %d | %s | %s | %s |" %
          (case, clients, flight, " | ".join(columns), ratio(ours, theirs), part), flush=True)


def life(given, directory):
    """Rows of (what, unit, goal), a number for each side."""
    rows = {}

    def note(what, side, number):
        rows.setdefault(what, {}).setdefault(side.name, []).append(number)

    for turn in range(given.repeats):
        folder = os.path.join(directory, "life%d" % turn)
        for side in sides(given, folder, 1):
            begins(given, side, note)
        for side in sides(given, folder, 3):
            loses_leader(side, note)
        shutil.rmtree(folder, ignore_errors=True)
    print("\n| less is better | coord | ZooKeeper | times |\n|---|---|---|---|")
    for what, found in rows.items():
        ours, theirs = (statistics.median(found[name]) if name in found else None
                        for name in ("coord", "ZooKeeper"))
        shown = "-" if theirs is None else "%.3f" % theirs
        print("| %s | %.3f | %s | %s |" % (what, ours, shown, ratio(ours, theirs, True)))


def begins(given, side, note):
    many = format(given.nodes, ",")
    try:
        note("first write after a start, s", side, side.start())
        note("resident, idle, MB", side, side.rss_mb())
        note("%s nodes of 100 B are made in, s" % many, side,
             side.bench("fill", side.servers, "--nodes=%d" % given.nodes)[0])
        note("resident with these, MB", side, side.rss_mb())
        side.stop(signal.SIGKILL)
        note("first write after a restart with these, s", side, side.start())
        time.sleep(given.rest)
        side.stop(signal.SIGKILL)
        note("the same, after %d s without a client, s" % given.rest, side, side.start())
    finally:
        side.stop(signal.SIGKILL)


def loses_leader(side, note):
    try:
        side.start()
        for server in side.servers:  # all serve
            side.first([server])
        leader = side.leader()
        others = [server for server in side.servers if server is not leader]
        time.sleep(1)
        leader.stop(signal.SIGKILL)
        begun = time.clock_gettime(time.CLOCK_MONOTONIC)
        note("three servers: first write after the leader was killed, s", side,
             side.first(others) - begun)
    finally:
        side.stop(signal.SIGKILL)


def numbers(value):
    return [int(each) for each in value.split(",")]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("bench")
    arguments.add_argument("zkserver")
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--life", action="store_true")
    arguments.add_argument("--seconds", type=float, default=3)
    arguments.add_argument("--warm", type=float, default=20)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--servers", type=numbers, default=[1, 3])
    arguments.add_argument("--cases", type=lambda value: value.split(","), default=CASES)
    arguments.add_argument("--clients", type=numbers, default=[1, 16, 64])
    arguments.add_argument("--flight", type=numbers, default=[1, 64])
    arguments.add_argument("--nodes", type=int, default=1000000)
    arguments.add_argument("--rest", type=int, default=20)
    arguments.add_argument("--directory", default=None)
    # As ZooKeeper's own scripts start it, where nothing else is said.
    arguments.add_argument("--java", action="append", default=None)
    given = arguments.parse_args()
    given.java = given.java or ["-Xmx1000m"]
    if given.quick:
        given.seconds, given.warm, given.repeats, given.nodes = 0.1, 0, 1, 1000
        given.clients, given.flight, given.servers = [4], [4], [1]
    directory = tempfile.mkdtemp(prefix="zookeeper-bench.", dir=given.directory)
    given.alone = given.quick or zookeeper(os.path.join(directory, "probe")) is None
    try:
        if not given.life:
            for count in given.servers:
                throughput(given, directory, count)
        life(given, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
