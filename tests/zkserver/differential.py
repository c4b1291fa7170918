#!/usr/bin/env python3
"""The same random requests to a real ZooKeeper 3.8 and to zkserver: is every answer, every Stat and
every event the same?

    differential.py ZKSERVER [--operations=N] [--pipeline=N] [--servers=N] [--seed=N] [--keep]

What two servers cannot have alike is compared by what it means: zxids by the operation that they
are of, session ids by the client, times not at all. Exits with 77 where there is no ZooKeeper.
"""
import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time

from wire import (Client, Closed, OPEN_ACL, Reader, acl, free_port, i32, i64, text, zkserver,
                  zookeeper)

CLIENTS = 3
LISTS = ("data", "exist", "child", "persistent", "recursive")
NAMES = ["a", "b", "c", "d"]
NEVER_MS = 1 << 30  # no two servers remove a container at the same step
# Below this are the watches that stay, and no others: in ZooKeeper 3.8 the one replaces the other.
STAYING = "/d"
BAD_PATHS = ["", "a", "/a/", "//", "/a//b", "/./a", "/a/..", "/a/\x01", "/a\x00b", "/nope//x", None,
             "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/", "/\ue000", "/\u00e9"]
ACLS = [OPEN_ACL, OPEN_ACL, OPEN_ACL, OPEN_ACL, [(31, b"auth", b"")], [(1, b"world", b"anyone")],
        [(31, b"digest", b"u1:eOPVOd3DAYW8KLpjYCZHTtVM2B4=")], [], None, [(31, b"none", b"x")],
        [(31, b"ip", b"127.0.0.1")], [(31, b"ip", b"10.0.0.0/8"), (17, b"world", b"anyone")],
        [(31, b"ip", b"bad")], [(31, b"digest", b"nocolon")], [(31, b"world", b"me")],
        [(0, b"world", b"anyone")], [(31, b"world", b"anyone"), (31, b"world", b"anyone")],
        [(5, b"auth", b""), (2, b"world", b"anyone")], [(31, b"auth", None)],
        [(31, b"x509", b"CN=x")], [(31, b"super", b"")], [(31, b"sasl", b"u")]]
DATA = [b"", b"x", None, b"12345", b"z" * 100]
KINDS = {1: "create", 2: "delete", 3: "exists", 4: "get", 5: "set", 6: "getACL", 7: "setACL",
         8: "children", 9: "sync", 11: "ping", 12: "children2", 14: "multi", 15: "create2",
         17: "checkWatches", 18: "removeWatches", 19: "container", 21: "ttl", 22: "multiRead",
         100: "auth", 101: "setWatches", 103: "ephemerals", 104: "count", 105: "setWatches2",
         106: "addWatch", 107: "whoami"}


class Generator:
    """Draws operations: (client, what), where what is a request, or "reopen" and the like."""

    def __init__(self, seed, bad_paths=BAD_PATHS):
        self.rng, self.bad_paths = random.Random(seed), bad_paths

    def path(self):
        rng = self.rng
        if rng.random() < 0.06:
            return rng.choice(self.bad_paths)
        depth = rng.choice([1, 1, 2, 2, 2, 3])
        return "/" + "/".join(rng.choice(NAMES) for _ in range(depth))

    def version(self):
        return self.rng.choice([-1, -1, -1, -1, 0, 0, 1, 2, 5, -7])

    def write(self):
        """A request that may be a part of a multi: (type, body)."""
        rng = self.rng
        kind = rng.choice([1, 1, 1, 15, 15, 19, 21, 2, 2, 2, 5, 5, 5])
        path = text(self.path())
        if kind == 2:
            return kind, path + i32(self.version())
        if kind == 5:
            return kind, path + text(rng.choice(DATA)) + i32(self.version())
        flags = rng.choice([0, 0, 0, 0, 1, 1, 2, 3, 3, 9, -1])
        if kind == 19:
            flags = 4
        body = path + text(rng.choice(DATA)) + acl(rng.choice(ACLS))
        if kind == 21:
            ttl = rng.choice([1 << 30, 1 << 30, 0, 1 << 39, 1 << 41])
            return kind, body + i32(rng.choice([5, 5, 6, 0])) + i64(ttl)
        return kind, body + i32(flags)

    def meanwhile(self):
        """Writes while a client is away; none of which one that stays would hear here alone."""
        drawn = [self.write() for _ in range(self.rng.choice([0, 2, 4, 8]))]
        return [each for each in drawn if STAYING.encode() not in each[1][4:]]

    def request(self):
        rng = self.rng
        drawn = rng.random()
        if drawn < 0.40:
            return self.write()
        if drawn < 0.48:
            return self.multi()
        if drawn < 0.80:
            kind, path = rng.choice([3, 3, 4, 4, 8, 12]), self.path()
            watch = rng.random() < 0.5 and not (path or "").startswith(STAYING)
            return kind, text(path) + (b"\1" if watch else b"\0")
        if drawn < 0.84:
            return 6, text(self.path())
        if drawn < 0.87:
            return 7, text(self.path()) + acl(rng.choice(ACLS)) + i32(self.version())
        if drawn < 0.90:
            return 9, text(rng.choice(["/", "/a", "/nope", "x"]))
        if drawn < 0.92:
            return 22, self.multi_read()
        if drawn < 0.94:
            path = self.path()
            if path in BAD_PATHS:  # ZooKeeper sets watches where no node can be
                path = "/a"
            stays = path.startswith(STAYING)
            return 18, text(path) + i32(3 if stays else rng.choice([1, 2, 3, 3, 0, 9]))
        if drawn < 0.95:
            return 104, text(self.path() or "/")
        if drawn < 0.96:
            return 103, text(rng.choice(["/", "", "/a", "/b/", "/a/b", "x"]))
        if drawn < 0.97:
            return 107, b""
        if drawn < 0.98:
            path = STAYING + "".join("/" + rng.choice(NAMES) for _ in range(rng.randrange(3)))
            mode = 1 if path.startswith(STAYING + "/a") else 0
            return 106, text(path) + i32(rng.choice([mode, mode, mode, mode, 7, -1]))
        if drawn < 0.985:
            return 17, text(rng.choice(["/q/never", "/r/never"])) + i32(rng.choice([1, 2, 3]))
        return self.damaged()

    def multi(self):
        rng = self.rng
        body = b""
        for _ in range(rng.choice([0, 1, 2, 2, 3, 5])):
            kind, part = self.write()
            if rng.random() < 0.2:
                path = self.path()
                if path == "/zookeeper/config":  # its version is another
                    path = "/zookeeper"
                kind, part = 13, text(path) + i32(self.version())
            body += i32(kind) + b"\0" + i32(-1) + part
        return 14, body + i32(-1) + b"\1" + i32(-1)

    def multi_read(self):
        body = b""
        for _ in range(self.rng.choice([0, 1, 2, 4])):
            body += i32(self.rng.choice([4, 8])) + b"\0" + i32(-1) + text(self.path()) + b"\0"
        return body + i32(-1) + b"\1" + i32(-1)

    def damaged(self):
        kind, body = self.rng.choice([self.write, lambda: (4, text("/a") + b"\0"), self.multi])()
        return kind, body[:self.rng.randrange(0, max(1, len(body) - 1))]

    def operation(self):
        client = self.rng.randrange(CLIENTS)
        drawn = self.rng.random()
        if drawn < 0.004:
            return client, "close"
        if drawn < 0.012:
            return client, "reattach"
        if drawn < 0.020:
            return client, "auth"
        return client, self.request()


class Side:
    """One of the two servers, with its clients."""

    def __init__(self, name, ports, trace=None):
        self.name, self.ports, self.trace = name, ports, trace
        self.moves = 0
        self.clients = [Client(self.port(i)) for i in range(CLIENTS)]
        self.sessions = {client.session: i for i, client in enumerate(self.clients)}
        self.sessions[0] = None
        self.zxids = {0: "none"}
        self.step = 0
        self.watching = [dict() for _ in range(CLIENTS)]
        self.opened = 0

    def port(self, client):
        """Of several servers each client has one, and goes to the next one with each move."""
        return self.ports[(client + self.moves) % len(self.ports)]

    def catch_up(self):
        """Brings the servers that the clients are at to where the newest one is."""
        if len(self.ports) > 1:
            for each in self.clients:
                each.call(9, text("/"))

    def zxid(self, value):
        """Which operation a zxid is of."""
        return self.zxids.setdefault(value, "step %d" % self.step)

    def owner(self, value):
        return self.sessions.get(value, "stranger %x" % value)

    def stat(self, stat):
        stat = dict(stat)
        for key in ("czxid", "mzxid", "pzxid"):
            stat[key] = self.zxid(stat[key])
        stat["owner"] = self.owner(stat["owner"])
        stat["mtime"], stat["ctime"] = stat["mtime"] >= stat["ctime"], 0
        return stat

    def run(self, step, client, what, meanwhile=()):
        self.step = step
        self.catch_up()
        if what == "close":
            return self.close(client)
        if what == "reattach":
            return self.reattach(client, meanwhile)
        if what == "auth":
            credential = "u%d:p" % (step % 3)
            answer = self.clients[client].call(100, i32(0) + text("digest") + text(credential), -4)
            return [answer[1:]]
        kind, body = what
        one = self.clients[client]
        zxid_before = one.zxid
        try:
            xid, zxid, error, answer = one.call(kind, body)
        except Closed:
            self.clients[client] = self.reopen(client)
            return ["closed"]
        assert zxid >= zxid_before or zxid <= 0, "%s: zxid goes back" % self.name
        found = self.take(client, kind, body, zxid, error, answer)
        if self.trace and (self.trace.encode() in body or any(c.events for c in self.clients)):
            print(self.name, step, client, KINDS.get(kind), body[:40], found[:1],
                  self.watching[client])
        return found + self.flush_all()

    def run_batch(self, step, client, requests):
        """All at once, and then the answers, each behind the events that came before it."""
        self.step = step
        self.catch_up()
        one = self.clients[client]
        for kind, body in requests:
            one.send(kind, body)
        found = []
        for kind, body in requests:
            try:
                _, zxid, error, answer = one.reply()
            except Closed:
                self.clients[client] = self.reopen(client)
                return found + ["closed"]
            assert zxid >= one.zxid or zxid <= 0, "%s: zxid goes back" % self.name
            one.zxid = max(one.zxid, zxid)
            found.append(self.events(client))
            found.append(self.take(client, kind, body, zxid, error, answer))
        return found + self.flush_all()

    def flush_all(self):
        self.catch_up()
        return [(i, self.flush(i)) for i in range(CLIENTS)]

    def take(self, client, kind, body, zxid, error, answer):
        """What an answer says, and what it means for the watches that the client has."""
        if error == 0 and kind in (1, 2, 5, 7, 14, 15, 19, 21):
            self.zxid(zxid)
        found = [error, self.decode(kind, error, answer)]
        if kind in (3, 4, 8, 12) and body[-1:] == b"\1" and (error == 0 or
                                                             (kind == 3 and error == -101)):
            self.note_watch(client, kind, error, body)
        if error == 0 and kind in (106, 18):
            self.note_staying(client, kind, body)
        return found

    def note_watch(self, client, kind, error, body):
        path = body[4:-1].decode()
        if not path:
            return
        which = "child" if kind in (8, 12) else ("exist" if error else "data")
        self.watching[client][(which, path)] = True

    def note_staying(self, client, kind, body):
        path, mode = body[4:-4].decode(), body[-1]
        if kind == 106:
            self.watching[client].pop(("persistent", path), None)
            self.watching[client].pop(("recursive", path), None)
            self.watching[client][("recursive" if mode else "persistent", path)] = True
            return
        for which in {1: ["child"], 2: ["data", "exist"], 3: list(LISTS)}[mode]:
            self.watching[client].pop((which, path), None)

    def events(self, client):
        events, self.clients[client].events = self.clients[client].events, []
        for kind, _, path in events:
            gone = {1: ["exist", "data"], 2: ["exist", "data", "child"], 3: ["exist", "data"],
                    4: ["child"]}[kind]
            for which in gone:
                self.watching[client].pop((which, path), None)
        return events

    def close(self, client):
        answer = self.clients[client].call(-11)
        found = [answer[2], len(answer[3])]
        self.clients[client].close()
        self.clients[client] = self.reopen(client)
        # In which order its nodes go is not said.
        self.catch_up()
        return found + [(i, sorted(self.flush(i))) for i in range(CLIENTS) if i != client]

    def flush(self, client):
        self.clients[client].ping()
        return self.events(client)

    def reopen(self, client):
        one = Client(self.port(client))
        self.watching[client] = {}
        self.opened += 1
        self.sessions[one.session] = "client %d, %d" % (client, self.opened)
        return one

    def reattach(self, client, meanwhile):
        """Cuts the connection, takes the session up again, and sets its watches. Meanwhile
        another client asks for those writes."""
        old = self.clients[client]
        zxid = old.zxid
        old.close()
        found, other = [], (client + 1) % CLIENTS
        for kind, body in meanwhile:
            _, zxid, error, answer = self.clients[other].call(kind, body)
            found.append(self.take(other, kind, body, zxid, error, answer))
        self.moves += 1
        one = None
        while one is None:
            try:
                one = Client(self.port(client), session=old.session, password=old.password,
                             zxid=zxid)
            except Closed:  # that server is not there yet: a client would try the next one
                time.sleep(0.005)
        assert one.session == old.session, "%s: the session is gone" % self.name
        one.xid, one.zxid = old.xid, zxid
        self.clients[client] = one
        for which, path in sorted(self.watching[client]):
            # ZooKeeper tells here, and nowhere else, of a node that the client may not read.
            if which == "exist" and one.call(4, text(path) + b"\0")[2] == -102:
                del self.watching[client][(which, path)]
        body = i64(zxid)
        for which in LISTS:
            paths = [path for kind, path in sorted(self.watching[client]) if kind == which]
            body += i32(len(paths)) + b"".join(text(path) for path in paths)
        answer = one.call(105, body, -8)
        one.ping()
        found += [answer[2], sorted(self.events(client))]
        return found + [(i, self.flush(i)) for i in range(CLIENTS) if i != client]

    def decode(self, kind, error, body):
        if error != 0:
            return None  # ZooKeeper has a body behind some: nobody looks at it
        in_ = Reader(body)
        if kind == 1:
            found = [in_.text()]
        elif kind in (15, 19, 21):
            found = [in_.text(), self.stat(in_.stat())]
        elif kind in (3, 5, 7):
            found = [self.stat(in_.stat())]
        elif kind == 4:
            found = [in_.text(), self.stat(in_.stat())]
        elif kind == 6:
            found = [sorted(in_.acl(), key=repr), self.stat(in_.stat())]
        elif kind == 8:
            found = [sorted(in_.names())]
        elif kind == 12:
            found = [sorted(in_.names()), self.stat(in_.stat())]
        elif kind == 103:
            found = [sorted(in_.names())]
        elif kind == 107:
            found = [sorted((in_.text(), in_.text()) for _ in range(in_.i32()))]
        elif kind in (14, 22):
            found = self.decode_multi(in_)
        else:
            found = [body]
        return found + [in_.left() if kind not in (9, 104, 106, 2, 17, 18) else 0]

    def decode_multi(self, in_):
        found = []
        while True:
            kind, done, error = in_.i32(), in_.data[in_.at], 0
            in_.at += 1
            error = in_.i32()
            if done:
                return found + [(kind, error)]
            part = [kind, error]
            if kind == -1:
                part.append(in_.i32())
            elif kind == 1:
                part.append(in_.text())
            elif kind == 15:
                part += [in_.text(), self.stat(in_.stat())]
            elif kind == 5:
                part.append(self.stat(in_.stat()))
            elif kind == 4:
                part += [in_.text(), self.stat(in_.stat())]
            elif kind == 8:
                part.append(sorted(in_.names()))
            found.append(part)


def show(what):
    if isinstance(what, str):
        return what
    return "%s %r" % (KINDS.get(what[0], what[0]), what[1])


def differing(results):
    """The place of the first item in which two lists differ."""
    for i, (a, b) in enumerate(zip(*results)):
        if a != b:
            return i
    return 0


def start_ours(program, directory, count):
    config = "extendedTypesEnabled=true\nznode.container.checkIntervalMs=%d\n" % NEVER_MS
    if count == 1:
        return [zkserver(program, directory, config).start()]
    for i in range(count):
        config += "server.%d=127.0.0.1:%d:%d\n" % (i + 1, free_port(), free_port())
    servers = []
    for i in range(count):
        home = os.path.join(directory, str(i + 1))
        servers.append(zkserver(program, home, config))
        os.makedirs(home + "/data")
        with open(home + "/data/myid", "w") as out:
            out.write("%d\n" % (i + 1))
    starting = [threading.Thread(target=each.start) for each in servers]
    [each.start() for each in starting], [each.join() for each in starting]
    return servers


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("--operations", type=int, default=3000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--pipeline", type=int, default=1, help="requests sent at once")
    arguments.add_argument("--servers", type=int, default=1, help="of ours: the clients are at all")
    arguments.add_argument("--most", type=int, default=20, help="differences that are shown")
    arguments.add_argument("--trace", help="a path: all that is asked of it is shown")
    arguments.add_argument("--keep", action="store_true")
    given = arguments.parse_args()
    directory = tempfile.mkdtemp(prefix="zkserver.")
    real = zookeeper(os.path.join(directory, "real"),
                     properties=["zookeeper.extendedTypesEnabled=true",
                                 "znode.container.checkIntervalMs=%d" % NEVER_MS])
    if real is None:
        print("skipped: Debian's package zookeeper is not installed")
        return 77
    ours = start_ours(given.program, os.path.join(directory, "ours"), given.servers)
    differences = 0
    counts = {}
    try:
        real.start()
        sides = [Side("ZooKeeper", [real.port], given.trace),
                 Side("zkserver", [each.port for each in ours])]
        # Of several servers it has their addresses, and of one nothing.
        paths = [path for path in BAD_PATHS if given.servers == 1 or path != "/zookeeper/config"]
        generator = Generator(given.seed, paths)
        for step in range(given.operations):
            client, what = generator.operation()
            if given.pipeline > 1 and not isinstance(what, str):
                # ZooKeeper judges what comes behind a setACL by the ACL before it, for a while.
                drawn = [generator.request() for _ in range(given.pipeline - 1)]
                batch = [what] + [each for each in drawn if each[0] != 7]
                batch = batch[::-1] if what[0] == 7 else batch
                results = [side.run_batch(step, client, batch) for side in sides]
                what = batch[differing(results) // 2 % len(batch)]
            else:
                meanwhile = generator.meanwhile() if what == "reattach" else ()
                results = [side.run(step, client, what, meanwhile) for side in sides]
            name = what if isinstance(what, str) else KINDS.get(what[0], what[0])
            counts[name] = counts.get(name, 0) + 1
            if results[0] == results[1]:
                continue
            differences += 1
            if differences <= given.most:
                print("step %d, client %d: %s" % (step, client, show(what)))
                place = differing(results) if given.pipeline > 1 else 0
                for side, result in zip(sides, results):
                    print("    %-10s %r" % (side.name, result[place:]))
    finally:
        for each in [real] + ours:
            each.stop()
        if not given.keep:
            shutil.rmtree(directory, ignore_errors=True)
    print("seed %d: %d operations, %d differences; %s" % (
        given.seed, given.operations, differences,
        ", ".join("%s %d" % each for each in sorted(counts.items(), key=str))))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
