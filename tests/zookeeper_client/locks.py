#!/usr/bin/env python3
"""Who contends for a lock, in one queue: Curator's InterProcessMutex, kazoo's Lock, and coord's own
through zookeeper_client; and Curator's LeaderLatch. Over zkserver alone, over three of them of which
the leader is killed, and over a ZooKeeper.

    locks.py ZKSERVER ZOOKEEPER_CLIENT [NAME ...]

What is not installed is left out, by name: Curator (Debian's libcurator-recipes-java and a JDK), the
package zookeeper, python3-kazoo. Exits with 77, which CTest reads as skipped, without kazoo.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "zkserver"))
from ensemble import Ensemble, kazoo
from wire import SMALL_JAVA, expect, free_port, wait_until, zkserver, zookeeper

JARS = ["/usr/share/java/%s.jar" % name for name in
        ("curator-recipes", "curator-framework", "curator-client", "guava", "zookeeper",
         "slf4j-nop")]


class Curator:
    """Java programs with Curator's recipes, or `why` they are not there."""

    def __init__(self, directory):
        self.directory, self.why = directory, ""
        missing = [jar for jar in JARS if not os.path.exists(jar)]
        if missing or not shutil.which("javac") or not shutil.which("java"):
            self.why = "Curator is left out: " + (missing[0] if missing else "a JDK") + \
                " is not installed"
            return
        subprocess.check_call(["javac", "-cp", ":".join(JARS), "-d", directory,
                               os.path.join(HERE, "Contender.java")])

    def start(self, hosts, *arguments):
        command = ["java", *SMALL_JAVA, "-cp", ":".join([self.directory] + JARS), "Contender"]
        return subprocess.Popen(command + [hosts] + [str(each) for each in arguments],
                                stdout=subprocess.DEVNULL)


class Kazoo(threading.Thread):
    """kazoo's own name of a node is none that Curator minds: it goes by the text, which begins with
    random digits, on a ZooKeeper as well. Beside Curator it has the name of Curator's."""

    def __init__(self, ports, path, rounds, who, file, beside_curator):
        super().__init__()
        self.given, self.error = (ports, path, rounds, who, file), None
        self.node_name = "-lock-" if beside_curator else "__lock__"
        self.start()

    def lock(self, client, path, who):
        lock = client.Lock(path, who, extra_lock_patterns=["-lock-"])
        lock.prefix = lock.prefix.replace("__lock__", self.node_name)
        lock.create_path = path + "/" + lock.prefix
        return lock

    def run(self):
        ports, path, rounds, who, file = self.given
        try:
            client = kazoo(ports)
            for _ in range(rounds):
                lock = self.lock(client, path, who)
                expect(lock.acquire(timeout=60), "kazoo's lock is granted")
                note(file, "begin " + who)
                time.sleep(0.02)
                note(file, "end " + who)
                lock.release()
            client.stop(), client.close()
        except Exception as error:
            self.error = error


class Ours(threading.Thread):
    """zookeeper_client, once for each turn."""

    def __init__(self, program, hosts, path, rounds, who, file):
        super().__init__()
        script = "echo begin %s >> %s; sleep 0.02; echo $COORD_FENCING_TOKEN >> %s.token; " \
            "echo end %s >> %s" % (who, file, file, who, file)
        self.command = [program, hosts, "lock", path, "sh", "-c", script]
        self.rounds, self.error = rounds, None
        self.start()

    def run(self):
        try:
            for _ in range(self.rounds):
                expect(subprocess.call(self.command, timeout=90) == 0, "our lock is granted")
        except Exception as error:
            self.error = error


def note(file, line):
    with open(file, "a") as out:
        out.write(line + "\n")


def lines_of(file):
    return open(file).read().split("\n")[:-1] if os.path.exists(file) else []


def judge(file, counts, may_overlap=False):
    """One after the other, each as often as it was to be."""
    lines = lines_of(file)
    for who, rounds in counts.items():
        expect(lines.count("begin " + who) == rounds and lines.count("end " + who) == rounds,
               "%s has been there %d times: %r" % (who, rounds, lines))
    for first, second in zip(lines[::2], lines[1::2]):
        is_pair = first.split()[0] == "begin" and second == "end " + first.split()[1]
        expect(is_pair or may_overlap, "two were there at once: %r" % lines)
    if os.path.exists(file + ".token"):
        tokens = [int(line) for line in lines_of(file + ".token")]
        expect(tokens == sorted(set(tokens)), "tokens grow: %r" % tokens)


def end(processes, threads):
    for process in processes:
        expect(process.wait(90) == 0, "Curator's program has ended well")
    for thread in threads:
        thread.join(90)
        if thread.error:
            raise thread.error


def contend(given, ports, name, in_between=None):
    """All of them, while in_between happens."""
    hosts = ",".join("127.0.0.1:%d" % port for port in ports)
    locks, latches = (os.path.join(given.directory, name + kind) for kind in (".lock", ".latch"))
    rounds, counts, processes = 8, {"kazoo": 8, "ours": 4}, []
    if not given.curator.why:
        counts.update({"java": rounds * 3})
        processes = [given.curator.start(hosts, "lock", "/locks/door", rounds * 3, "java", locks)]
        processes += [given.curator.start(hosts, "latch", "/latch", 4, who, latches)
                      for who in ("one", "two")]
        # A Java takes its time to start: without waiting for it nobody would meet it.
        wait_until(lambda: lines_of(locks), "Curator holds the lock", 60)
    threads = [Kazoo(ports, "/locks/door", rounds, "kazoo", locks, not given.curator.why),
               Ours(given.client, hosts, "/locks/door", 4, "ours", locks)]
    if in_between:
        wait_until(lambda: len(lines_of(locks)) >= 4, "somebody holds the lock", 60)
        in_between()
    try:
        end(processes, threads)
    finally:
        for process in processes:
            process.poll() is None and process.kill()
    judge(locks, counts)
    if not given.curator.why:
        judge(latches, {"one": 4, "two": 4}, in_between is not None)
    left = subprocess.check_output([given.client, hosts, "ls", "/locks/door"]).decode()
    expect(left == "", "nobody has left a node: " + left)


def shell(given, ports):
    """The commands of zookeeper_client."""
    hosts = "127.0.0.1:%d" % ports[0]

    def run(*words, code=0):
        done = subprocess.run([given.client, hosts] + list(words), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=30)
        expect(done.returncode == code, "%r: %r" % (words, done))
        return done.stdout.decode()

    expect(run("create", "/s", "one") == "/s\n", "create")
    expect(run("create", "-s", "/s/n-") == "/s/n-0000000000\n", "a number")
    expect(run("get", "/s") == "one\n", "get")
    run("set", "/s", "two", "0")
    run("set", "/s", "three", "0", code=1)
    expect("version 1\n" in run("stat", "/s") and "length 3\n" in run("stat", "/s"), "stat")
    watcher = subprocess.Popen([given.client, hosts, "watch", "/s"], stdout=subprocess.PIPE)
    expect(watcher.stdout.readline() == b"watching /s\n", "it watches")
    holder = subprocess.Popen([given.client, hosts, "create", "-e", "/s/e"],
                              stdout=subprocess.PIPE)
    expect(holder.stdout.readline() == b"/s/e\n", "an ephemeral")
    expect(run("ls", "/s") == "e\nn-0000000000\n", "ls")
    holder.send_signal(signal.SIGINT)
    expect(holder.wait(20) == 0, "it ends well")
    run("rm", "/s", code=1)
    run("rm", "/s/n-0000000000")
    seen = [watcher.stdout.readline().decode() for _ in range(3)]
    expect(seen == ["created /s/e\n", "deleted /s/e\n", "deleted /s/n-0000000000\n"], seen)
    watcher.send_signal(signal.SIGINT)
    expect(watcher.wait(20) == 0, "it ends well")
    run("rm", "/s")
    expect(run("lock", "/s", "sh", "-c", "exit 7", code=7) == "", "the command's own status")
    for words in ([], ["ls"], ["none", "/"], ["create", "-x", "/"]):
        run(*words, code=2)


def alone(given):
    server = zkserver(given.server, os.path.join(given.directory, "alone")).start()
    try:
        shell(given, [server.port])
        contend(given, [server.port], "alone")
    finally:
        server.stop(signal.SIGKILL)


def three(given):
    ensemble = Ensemble(given.server, os.path.join(given.directory, "three"), 3)
    try:
        kill = lambda: ensemble.servers[ensemble.leader()].stop(signal.SIGKILL)
        contend(given, ensemble.ports(), "three", kill)
    finally:
        for server in ensemble.servers.values():
            server.stop(signal.SIGKILL)


def real(given):
    server = zookeeper(os.path.join(given.directory, "real"))
    if server is None:
        return print("real is left out: Debian's package zookeeper is not installed")
    try:
        server.start()
        shell(given, [server.port])
        contend(given, [server.port], "real")
    finally:
        server.stop(signal.SIGKILL)


class Given:
    pass


def main():
    given = Given()
    given.server, given.client = (os.path.abspath(each) for each in sys.argv[1:3])
    given.directory = tempfile.mkdtemp(prefix="coord_locks_")
    failed = 0
    try:
        given.curator = Curator(given.directory)
        if given.curator.why:
            print(given.curator.why)
        for test in (alone, three, real):
            if len(sys.argv) > 3 and test.__name__ not in sys.argv[3:]:
                continue
            begun = time.time()
            try:
                os.makedirs(os.path.join(given.directory, test.__name__), exist_ok=True)
                test(given)
                print("ok      %s (%.1f s)" % (test.__name__, time.time() - begun), flush=True)
            except Exception:
                failed += 1
                print("FAILED  %s\n%s" % (test.__name__, traceback.format_exc()), flush=True)
    finally:
        shutil.rmtree(given.directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
