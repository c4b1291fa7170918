#!/usr/bin/env python3
"""Ensembles of zkserver: members that change while clients work, and servers that are killed,
stopped, cut off and slow, while clients record what they are told, which history.py judges.

    ensemble.py ZKSERVER [NAME ...] [--seconds=S] [--rounds=N] [--seed=N]
    ensemble.py ZKSERVER beside       the same reconfigs to ours and to a real ZooKeeper

--seconds: of faults (3). --rounds: of replacements and rolling restarts (1). Exits with 77 where
python3-kazoo is not installed.
"""
import argparse
import heapq
import logging
import os
import random
import selectors
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
from history import History
from wire import (Client, Closed, Reader, Server, expect, fails, free_port, i32, i64, text,
                  wait_until, word, zkserver, zookeeper)

try:
    from kazoo.client import KazooClient
    from kazoo import exceptions as errors
except ImportError:
    # A python3 that is not the system's own does not see the system's packages.
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-B"] + sys.argv)
    print("skipped: python3-kazoo is not installed")
    sys.exit(77)

logging.disable(logging.CRITICAL)
SUPER = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="  # of super:test


class Proxy:
    """Between servers: one thread, which knows by the hello who has dialled whom."""

    def __init__(self):
        self.select = selectors.DefaultSelector()
        self.cut, self.delay = set(), {}  # pairs (from, to); seconds for such a pair
        self.later, self.count, self.is_over = [], 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def listen(self, to_port):
        """Returns the port that leads there."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", free_port()))
        listener.listen(64)
        self.select.register(listener, selectors.EVENT_READ, ("accept", to_port))
        return listener.getsockname()[1]

    def run(self):
        while not self.is_over:
            for key, _ in self.select.select(0.005):
                what, data = key.data
                if what == "accept":
                    self.accept(key.fileobj, data)
                else:
                    self.read(key.fileobj, data)
            now = time.time()
            while self.later and self.later[0][0] <= now:
                self.pass_on(*heapq.heappop(self.later)[2:])

    def accept(self, listener, port):
        near = listener.accept()[0]
        try:
            far = socket.create_connection(("127.0.0.1", port), 1)
        except OSError:
            return near.close()
        link = {"pair": None, "ends": (near, far)}
        self.select.register(near, selectors.EVENT_READ, ("read", (far, link)))
        self.select.register(far, selectors.EVENT_READ, ("read", (near, link)))

    def read(self, source, data):
        to, link = data
        try:
            piece = source.recv(1 << 16)
        except OSError:
            piece = b""
        if link["pair"] is None and len(piece) >= 20:
            link["pair"] = struct.unpack(">II", piece[12:20])
        pair = link["pair"]
        if piece and pair in self.cut:
            return  # as a network does that says nothing
        self.count += 1
        due = time.time() + self.delay.get(pair, 0)
        heapq.heappush(self.later, (due, self.count, to, piece, link))

    def pass_on(self, to, piece, link):
        try:
            if piece:
                return to.sendall(piece)
        except OSError:
            pass
        for end in link["ends"]:
            try:
                self.select.unregister(end)
            except (KeyError, ValueError):
                pass
            end.close()

    def heal(self):
        self.cut, self.delay = set(), {}

    def close(self):
        self.is_over = True
        self.thread.join(5)


class Ensemble:
    def __init__(self, program, directory, count, config="", proxy=None):
        self.program, self.directory, self.config = program, directory, config
        self.proxy, self.servers, self.lines = proxy, {}, {}
        for number in range(1, count + 1):
            self.place(number)
        for number in range(1, count + 1):
            self.make(number, "".join(self.lines.values()))
        self.start(*self.servers)

    def place(self, number):
        client, peer = free_port(), free_port()
        at = self.proxy.listen(peer) if self.proxy else peer
        self.lines[number] = "server.%d=127.0.0.1:%d:%d:participant;127.0.0.1:%d\n" % (
            number, at, free_port(), client)
        self.servers[number] = Server(None, client, None)
        self.servers[number].peer = peer

    def make(self, number, lines):
        """A server with these in its zoo.cfg."""
        home = os.path.join(self.directory, "server%d" % number)
        old = self.servers[number]
        config = lines + self.config
        if self.proxy:
            config += "coord.peerPort=%d\n" % old.peer
        self.servers[number] = zkserver(self.program, home, config, old.port)
        self.servers[number].peer = old.peer
        os.makedirs(home + "/data", exist_ok=True)
        with open(home + "/data/myid", "w") as out:
            out.write("%d\n" % number)

    def start(self, *numbers):
        failed = []

        def one(number):
            try:
                self.servers[number].start()
            except Exception as error:
                failed.append(error)

        starting = [threading.Thread(target=one, args=(number,)) for number in numbers]
        [each.start() for each in starting], [each.join() for each in starting]
        if failed:
            raise failed[0]

    def join(self, number, role):
        """One that knows the others, and has that role in its own file."""
        lines = "".join(self.lines.values())
        self.place(number)
        own = self.lines[number].replace("participant", role)
        self.make(number, lines + own)
        self.start(number)

    def spec(self, number):
        return self.lines[number].strip()

    def ports(self):
        return [server.port for server in self.servers.values()]

    def running(self):
        return [number for number, server in self.servers.items() if server.process]

    def mode(self, number):
        try:
            return word(self.servers[number].port, "srvr").split("Mode: ")[1].split()[0]
        except (OSError, IndexError):
            return "none"

    def counts(self, number):
        try:
            return "coord_admitted\t1\n" in word(self.servers[number].port, "mntr")
        except OSError:
            return False

    def wait_until_all_count(self):
        """Who votes has a storage that counts: until then less is borne."""
        for number in self.running():
            wait_until(lambda: self.counts(number), "server %d counts" % number)

    def leader(self):
        found = []
        wait_until(lambda: found.extend(n for n in self.running() if self.mode(n) == "leader") or
                   found, "a leader")
        return found[0]

    def stop(self):
        for server in self.servers.values():
            if server.process:
                server.process.send_signal(signal.SIGCONT)
                server.stop(signal.SIGTERM)


class KazooWork:
    """A client of kazoo's that sets and gets, and never goes back."""

    def __init__(self, ports, path):
        self.zk = kazoo(ports)
        self.zk.create(path, b"0")
        self.path, self.done, self.is_over, self.error = path, 0, False, None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            version = 0
            while not self.is_over:
                self.done += 1
                try:
                    found = self.zk.set(self.path, b"%d" % self.done).version
                except (errors.ConnectionLoss, errors.ConnectionClosedError,
                        errors.SessionExpiredError):
                    time.sleep(0.02)
                    continue
                data, stat = self.zk.retry(self.zk.get, self.path)
                expect(found > version and stat.version >= found, "it has gone back")
                expect(int(data) == self.done, "it reads %r, and has set %d" % (data, self.done))
                version = found
        except Exception as error:
            self.error = error

    def end(self):
        self.is_over = True
        self.thread.join(30)
        self.zk.stop(), self.zk.close()
        if self.error:
            raise self.error
        expect(self.done > 10, "it has worked")


def kazoo(ports, auth=None):
    hosts = ",".join("127.0.0.1:%d" % port for port in ports)
    client = KazooClient(hosts=hosts, timeout=5, auth_data=auth,
                         connection_retry={"max_tries": -1, "max_delay": 0.2})
    client.start(timeout=20)
    return client


def changed(admin, joining=None, leaving=None, members=None, version=-1):
    """A reconfig that is asked for until those who join are in step. Returns the text."""
    until = time.time() + 20
    while True:
        try:
            return admin.reconfig(joining, leaving, members, version)[0].decode()
        except (errors.NewConfigNoQuorumError, errors.ReconfigInProcessError,
                errors.ConnectionLoss):
            expect(time.time() < until, "a reconfig never ends")
            time.sleep(0.05)


def members_of(text):
    return sorted(int(line.split("=")[0][7:]) for line in text.splitlines()
                  if line.startswith("server."))


def refusals(ensemble, admin):
    """What ZooKeeper refuses, with its errors."""
    nobody = kazoo(ensemble.ports())
    joins = ensemble.spec(1)
    fails(errors.NoAuthError, nobody.reconfig, joins, None, None)
    nobody.stop(), nobody.close()
    fails(errors.BadVersionError, admin.reconfig, joins, None, None, 77)
    fails(errors.BadArgumentsError, admin.reconfig, "server.9=127.0.0.1:1:2", None, None)
    fails(errors.BadArgumentsError, admin.reconfig, "server.9=nonsense", None, None)
    fails(errors.MarshallingError, admin.reconfig, None, "x", None)
    fails(errors.BadArgumentsError, admin.reconfig, joins, None, joins)
    absent = "server.9=127.0.0.1:%d:%d:participant;%d" % (free_port(), free_port(), free_port())
    whole = "\n".join([ensemble.spec(1), absent, absent.replace(".9=", ".8=")])
    fails(errors.NewConfigNoQuorumError, admin.reconfig, None, None, whole)


def replacement(ensemble, admin, last):
    """Another in the place of the last one, which is dead; then all are restarted, in turn."""
    ensemble.servers[last].stop(signal.SIGKILL)
    ensemble.join(last + 1, "observer")
    text_ = changed(admin, ensemble.spec(last + 1), str(last))
    expect(members_of(text_) == [1, 2, 3, 4, last + 1], text_)
    ensemble.wait_until_all_count()
    version = int(text_.split("version=")[1], 16)
    fails(errors.BadVersionError, admin.reconfig, None, "4", None, version - 1)
    for number in ensemble.running():  # the leader, too
        leads = ensemble.leader() == number
        expect(ensemble.servers[number].stop(signal.SIGTERM) == 0, "it ends well")
        with open(ensemble.servers[number].log) as said:
            expect(not leads or "hands over before it stops" in said.read(), "it hands over")
        ensemble.start(number)
        ensemble.wait_until_all_count()
    text_ = admin.retry(admin.get, "/zookeeper/config")[0].decode()
    expect(members_of(text_) == [1, 2, 3, 4, last + 1], "as before: " + text_)
    return text_


def reconfig(program, directory, given):
    """From three to five, one in the place of another, a rolling restart, groups."""
    ensemble = Ensemble(program, directory, 3, "reconfigEnabled=true\n"
                        "DigestAuthenticationProvider.superDigest=%s\n" % SUPER)
    work, history, admin = [], History(), None
    try:
        admin = kazoo(ensemble.ports(), [("digest", "super:test")])
        work = [KazooWork(ensemble.ports(), "/kazoo%d" % i) for i in range(2)]
        history.begin(ensemble.ports(), 3, given.seed)
        text_ = admin.get("/zookeeper/config")[0].decode()
        expect(ensemble.spec(2) in text_.splitlines() and members_of(text_) == [1, 2, 3], text_)
        refusals(ensemble, admin)

        ensemble.join(4, "observer")
        ensemble.join(5, "participant")
        seen = []
        admin.get("/zookeeper/config", watch=seen.append)
        text_ = changed(admin, ",".join([ensemble.spec(4), ensemble.spec(5)]))
        expect(members_of(text_) == [1, 2, 3, 4, 5], text_)
        expect(text_ == admin.get("/zookeeper/config")[0].decode(), "the answer is what is read")
        wait_until(lambda: seen, "the watch of the members")
        ensemble.wait_until_all_count()
        for number in [n for n in (1, 2, 3) if n != ensemble.leader()][:2]:
            ensemble.servers[number].stop(signal.SIGKILL)
        admin.retry(admin.create, "/three-of-five")
        ensemble.start(*[n for n in (1, 2, 3) if n not in ensemble.running()])

        for last in range(5, 5 + given.rounds):
            text_ = replacement(ensemble, admin, last)
        whole = "\n".join(ensemble.spec(n) for n in (1, 2, 3, 4)) + "\n" + \
            "\n".join(["group.1=1:2", "group.2=3:4", "weight.2=3", "weight.4=0"])
        version = int(text_.split("version=")[1], 16)
        text_ = changed(admin, members=whole, version=version)
        for line in ("group.1=1:2", "group.2=3:4", "weight.2=3", "weight.4=0"):
            expect(line in text_.splitlines(), text_)
        expect(members_of(text_) == [1, 2, 3, 4], text_)
        fails(errors.BadArgumentsError, admin.reconfig, None, "4", None)
        [each.end() for each in work]
        work = []
        expect(history.end() > 50, "so much was recorded")
    finally:
        for each in work:
            each.is_over = True
        history.give_up()
        if admin:
            admin.stop(), admin.close()
        ensemble.stop()


def script(lines, port):
    """Reconfigs, one after the other. Returns what is answered, without what no two have alike."""
    def opened():
        client = Client(port)
        client.call(100, i32(0) + text("digest") + text("super:test"), -4)
        return client

    def asked(client, joining=None, leaving=None, members=None, version=-1):
        body = text(joining) + text(leaving) + text(members) + i64(version)
        for _ in range(20):
            try:
                error, found = (client or opened()).call(16, body)[2:]
                return error, Reader(found).text().decode() if error == 0 else ""
            except (Closed, OSError):  # ZooKeeper's, while it elects
                time.sleep(0.5)
        return None, "closed"

    other, client = Client(port), None
    absent = "server.%d=127.0.0.1:%d:%d:participant;127.0.0.1:%d"
    absent = [absent % (n, free_port(), free_port(), free_port()) for n in (8, 9)]
    known = "\n".join(lines)
    said = [asked(other, lines[1]), asked(client, "server.9=127.0.0.1:1:2"),
            asked(client, "server.9=x"), asked(client, "nonsense"), asked(client, None, "x"),
            asked(client, lines[1], None, None, 77), asked(client, None, None, lines[0]),
            asked(client, None, None, "\n".join(lines[:1] + absent)),
            asked(client, None, None, "tickTime=7"),
            asked(client, None, None, known + "\ngroup.1=1:2"), asked(client, None, "3"),
            asked(client, lines[2]), asked(client, lines[2].replace("participant", "observer")),
            asked(client, None, "9"), asked(client, lines[2] + "," + lines[1], ""),
            asked(client, None, None, known + "\ngroup.1=1:2:3\nweight.2=3"),
            asked(client, None, "3")]
    same = ("version=", "weight.1=1", "weight.3=1")  # ours has the weights that are not 1 alone
    return [(code, sorted(line for line in found.splitlines() if not line.startswith(same)))
            for code, found in said]


def beside(program, directory, given):
    """The same reconfigs to an ensemble of ours and to one of ZooKeeper's."""
    config = "reconfigEnabled=true\n"
    own = "DigestAuthenticationProvider.superDigest=%s\n" % SUPER
    places = [(free_port(), free_port(), free_port()) for _ in range(3)]
    lines = ["server.%d=127.0.0.1:%d:%d:participant;127.0.0.1:%d" % (i + 1, *place)
             for i, place in enumerate(places)]
    answers = []
    for kind in ("coord", "ZooKeeper"):
        servers = []
        for i, place in enumerate(places):
            home, more = os.path.join(directory, kind + str(i)), config + "\n".join(lines) + "\n"
            if kind == "coord":
                server = zkserver(program, home, more + own, place[2])
            else:
                property_ = "zookeeper.DigestAuthenticationProvider.superDigest=" + SUPER
                server = zookeeper(home, more, [property_], place[2])
            if server is None:
                return print("skipped: ZooKeeper is not installed")
            os.makedirs(home + "/data", exist_ok=True)
            with open(home + "/data/myid", "w") as out:
                out.write("%d\n" % (i + 1))
            servers.append(server)
        try:
            [server.launch() for server in servers]
            [server.ready() for server in servers]
            time.sleep(1)  # all three are known to the leader
            answers.append(script(lines, servers[0].port))
        finally:
            [server.stop(signal.SIGKILL) for server in servers]
    for i, (ours, theirs) in enumerate(zip(*answers)):
        expect(ours == theirs, "%d is %r, and ZooKeeper's %r" % (i, ours, theirs))
    return print("%d reconfigs are answered alike" % len(answers[0]))


def moved(program, directory, given):
    """Without reconfigEnabled zoo.cfg says where servers are, whatever it was that founded them."""
    ensemble = Ensemble(program, directory, 3)
    try:
        zk = kazoo(ensemble.ports())
        zk.create("/moved", b"here")
        zk.stop(), zk.close()
        ensemble.stop()
        for number in ensemble.servers:
            ensemble.place(number)
        for number in ensemble.servers:
            ensemble.make(number, "".join(ensemble.lines.values()))
        ensemble.start(*ensemble.servers)
        zk = kazoo(ensemble.ports())
        expect(zk.get("/moved")[0] == b"here" and zk.set("/moved", b"there"), "they are there")
        zk.stop(), zk.close()
    finally:
        ensemble.stop()


def key_file(directory, name, *keys):
    path = os.path.join(directory, name)
    os.makedirs(directory, exist_ok=True)
    with open(path, "w") as out:
        out.write("# of a test\n" + "".join(key * 32 + "\n" for key in keys))
    os.chmod(path, 0o600)
    return path


def keys(program, directory, given):
    """Who has another key is nobody; a key is changed by rounds of restarts."""
    path = key_file(directory, "keys", "0a")
    ensemble = Ensemble(program, directory, 3, "coord.ensembleKeyFile=%s\n" % path)
    server = ensemble.servers[3]
    try:
        key_file(directory, "keys", "0b")
        server.stop()
        server.launch()
        time.sleep(0.5)
        wait_until(lambda: "dropped_unsealed\t0\n" not in
                   word(ensemble.servers[1].port, "mntr"), "it is not believed")
        expect(ensemble.mode(3) == "none", "and does not serve")
        server.stop()
        for text in (("0a", "0b"), ("0b", "0a"), ("0b",)):
            key_file(directory, "keys", *text)
            for number in (1, 2, 3):
                if ensemble.servers[number].process:
                    ensemble.servers[number].stop()
                ensemble.start(number)
        zk = kazoo([server.port])
        zk.create("/sealed")
        zk.stop(), zk.close()
        server.stop()
        os.chmod(path, 0o644)
        server.launch()
        expect(server.process.wait(20) == 1, "others may read it")
        server.process = None
    finally:
        ensemble.stop()


class Faults:
    """One after the other, each healed before the next."""

    def __init__(self, ensemble, proxy, seed):
        self.ensemble, self.proxy, self.rng = ensemble, proxy, random.Random(seed)
        self.done = []

    def victim(self):
        running = self.ensemble.running()
        leaders = [n for n in running if self.ensemble.mode(n) == "leader"]
        return self.rng.choice(leaders if leaders and self.rng.random() < 0.6 else running)

    def kill(self, victim):
        self.ensemble.servers[victim].stop(signal.SIGKILL)
        time.sleep(self.rng.choice([0, 0.3, 1]))
        self.ensemble.start(victim)

    def kill_all(self, _):
        for server in self.ensemble.servers.values():
            server.stop(signal.SIGKILL)
        self.ensemble.start(*self.ensemble.servers)

    def stand_still(self, victim):
        process = self.ensemble.servers[victim].process
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.choice([0.2, 1, 2]))
        process.send_signal(signal.SIGCONT)

    def cut(self, victim):
        others = [n for n in self.ensemble.servers if n != victim]
        pairs = [(victim, n) for n in others]
        if self.rng.random() < 0.7:
            pairs += [(n, victim) for n in others]
        self.proxy.cut = set(pairs)
        time.sleep(self.rng.choice([0.5, 1.5]))
        self.proxy.heal()

    def slow(self, victim):
        seconds = self.rng.choice([0.02, 0.1])
        others = [n for n in self.ensemble.servers if n != victim]
        self.proxy.delay = {pair: seconds for n in others for pair in ((victim, n), (n, victim))}
        time.sleep(0.7)
        self.proxy.heal()

    def run(self, seconds):
        until, turn = time.time() + seconds, 0
        kinds = [self.kill, self.stand_still, self.cut, self.slow]
        while time.time() < until or turn < len(kinds):
            kind = kinds[turn] if turn < len(kinds) else self.rng.choice(kinds + [self.kill_all])
            victim = self.victim()
            self.done.append("%s %d" % (kind.__name__, victim))
            kind(victim)
            turn += 1
            time.sleep(0.1)


def faults(program, directory, given):
    proxy, history = Proxy(), History()
    proxy.thread.start()
    ensemble = None
    try:
        path = key_file(directory, "keys", "0a")
        ensemble = Ensemble(program, directory, 3, "coord.ensembleKeyFile=%s\n" % path, proxy)
        history.begin(ensemble.ports(), 6, given.seed)
        drawn = Faults(ensemble, proxy, given.seed)
        try:
            drawn.run(given.seconds)
        finally:
            print("seed %d: %s" % (given.seed, ", ".join(drawn.done)))
        expect(history.end() > 100, "so much was recorded")
    finally:
        history.give_up()
        if ensemble:
            ensemble.stop()
        proxy.close()


def fed(program, directory, given):
    """An observer that names voters learns from one that follows; and goes on where that dies."""
    ensemble = Ensemble(program, directory, 3)

    def observers(number):
        line = [line for line in word(ensemble.servers[number].port, "mntr").splitlines()
                if line.startswith("coord_observers_fed\t")]
        return int(line[0].split("\t")[1])

    def feeder():
        return [n for n in ensemble.running() if n != 4 and observers(n) == 1]

    try:
        ensemble.wait_until_all_count()
        ensemble.config += "coord.feeders=1,2,3\n"
        ensemble.join(4, "observer")
        wait_until(feeder, "somebody feeds it")
        expect(feeder()[0] != ensemble.leader(), "and that one follows")
        zk = kazoo([ensemble.servers[4].port])
        zk.create("/fed", b"1")
        ensemble.servers[feeder()[0]].stop(signal.SIGKILL)
        zk.retry(zk.set, "/fed", b"2")
        expect(zk.get("/fed")[0] == b"2", "what is written there is read there")
        zk.stop(), zk.close()
        wait_until(feeder, "the other one feeds it")
    finally:
        ensemble.stop()


def self_test(program, directory, given):
    """The checkers find what is wrong with made-up histories."""
    import history
    history.self_test()


TESTS = [self_test, reconfig, moved, keys, fed, faults]
BY_NAME = [beside]  # only when it is named: a ZooKeeper takes its time


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--seconds", type=float, default=3)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    directory = tempfile.mkdtemp(prefix="zkserver.")
    failed = []
    for test in TESTS + BY_NAME:
        if test.__name__ not in (given.names or [each.__name__ for each in TESTS]):
            continue
        begun = time.time()
        try:
            test(given.program, os.path.join(directory, test.__name__), given)
        except Exception as error:
            failed.append(test.__name__)
            traceback.print_exc()
            print("%s: %s %s" % (test.__name__, type(error).__name__, error))
        print("%-15s %.1f s" % (test.__name__, time.time() - begun))
    if failed:
        print("what the servers have said is in " + directory)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    print("failed: " + ", ".join(failed) if failed else "all is well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
