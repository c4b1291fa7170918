"""Clients that record what they ask for and are told, and what must hold of that, by the names that
the simulations' checkers have:

    P1  writes are linearizable: each answer fits the log by zxid, which keeps to real time
    P2  nothing that was acknowledged is lost
    P3  no phantom: what is read was written by somebody, there
    P4  a read equals the state at its zxid, which never falls within a session
    P5  a session's answers come in the order of its requests
    P7  an event comes before any answer that shows the change; P8 it is the first change
    P9  an ephemeral node is there while its session is, and goes with it
    P10 a session does not expire before its timeout
    P11 fencing tokens rise; a holder's certain time ends before the next grant

The zxid in the header of each answer is what makes this cheap: of a write its own, of a read that
of the state. A write whose connection has ended is in doubt: it may be anywhere in the log, or not.
"""
import bisect
import collections
import random
import threading
import time

from wire import Client, Closed, OPEN_ACL, Reader, acl, i32, text

NODES = ["/h/n%d" % i for i in range(4)]
TIMEOUT_MS = 4000
KINDS = {1: "create", 2: "delete", 4: "get", 5: "set"}
EVENTS = {1: "create", 2: "delete", 3: "set"}


class Record:
    """A request, and its answer. error None: in doubt."""

    def __init__(self, kind, path, begun, **more):
        self.kind, self.path, self.begun = kind, path, begun
        self.ended = self.error = self.zxid = self.value = self.stat = self.version = None
        self.client = self.session = self.connection = 0
        self.watch, self.events = False, []
        self.__dict__.update(more)

    def __repr__(self):
        return str({key: value for key, value in self.__dict__.items() if value not in (None, [])})


class Worker(threading.Thread):
    def __init__(self, history, number, ports, seed):
        super().__init__(daemon=True)
        self.history, self.number, self.ports = history, number, ports
        self.rng = random.Random(seed * 100 + number)
        self.client, self.connection, self.count = None, 0, 0
        self.session, self.password, self.zxid = 0, bytes(16), 0
        self.heard_at = 0  # when what has been answered last was sent
        self.versions = {}

    def run(self):
        try:
            while not self.history.is_over:
                try:
                    if self.client is None:
                        self.connect()
                    elif self.number % 3 == 2:
                        self.lock()
                    else:
                        self.work()
                except (OSError, Closed):
                    self.drop()
                time.sleep(self.rng.choice([0, 0.002, 0.005]))
            self.drop()
        except Exception as error:  # of the worker itself
            self.history.violate("worker %d: %r" % (self.number, error))

    def drop(self):
        if self.client:
            self.client.close()
        self.client = None

    def connect(self):
        port = self.rng.choice(self.ports)
        client = Client(port, greet=False)
        client.socket.settimeout(3)
        sent_at = time.time()
        client.greet(TIMEOUT_MS, self.session, self.password, self.zxid)
        if client.timeout_ms <= 0:
            client.close()
            silence = time.time() - self.heard_at
            if silence < TIMEOUT_MS / 1000:
                self.history.violate("P10: session 0x%x has expired after %.3f s" %
                                     (self.session, silence))
            self.history.gone[self.session] = None
            self.session, self.password, self.zxid = 0, bytes(16), 0
            return
        if self.session == 0:
            self.history.live.add(client.session)
        self.client, self.session, self.password = client, client.session, client.password
        self.heard_at, self.connection = sent_at, self.connection + 1
        client.zxid = self.zxid

    def ask(self, asked):
        """Sends them all, and takes the answers."""
        begun, records = time.time(), []
        for kind, path, body, more in asked:
            record = Record(KINDS.get(kind, "other"), path, begun, client=self.number,
                            session=self.session, connection=self.connection, **more)
            records.append((kind, record))
            self.history.add(record)
        sent = [self.client.send(kind, body) for kind, _, body, _ in asked]
        for xid, (kind, record) in zip(sent, records):
            before = len(self.client.events)
            found, zxid, error, body = self.client.reply()
            if found != xid:
                self.history.violate("P5: the answer to %d is of %d" % (xid, found))
            record.events = self.client.events[before:]
            record.ended, record.zxid, record.error = time.time(), zxid, error
            self.heard_at, self.zxid = begun, max(self.zxid, zxid)
            self.read(kind, record, body)
        return [record for _, record in records]

    def read(self, kind, record, body):
        if record.error != 0:
            return
        reader = Reader(body)
        if kind == 4:
            record.value, record.stat = reader.text(), reader.stat()
            self.versions[record.path] = record.stat["version"]
        elif kind == 5:
            record.stat = reader.stat()
        elif kind == 15:
            record.path, record.stat = reader.text().decode(), reader.stat()
        elif kind == 8:
            record.value = reader.names()

    def value(self):
        self.count += 1
        return b"%d.%d" % (self.number, self.count)

    def draw(self):
        rng, path = self.rng, self.rng.choice(NODES)
        drawn = rng.random()
        if drawn < 0.5:
            watch = rng.random() < 0.4
            return 4, path, text(path) + (b"\1" if watch else b"\0"), {"watch": watch}
        if drawn < 0.9:
            value = self.value()
            version = self.versions.get(path, -1) if rng.random() < 0.3 else -1
            return 5, path, text(path) + text(value) + i32(version), {"value": value,
                                                                      "version": version}
        if drawn < 0.95:
            return 2, path, text(path) + i32(-1), {}
        value = self.value()
        return 1, path, text(path) + text(value) + acl(OPEN_ACL) + i32(0), {"value": value}

    def work(self):
        drawn = self.rng.random()
        if drawn < 0.01:
            return self.drop()
        if drawn < 0.02:
            return self.end_session()
        if drawn < 0.04:
            path = "/h/e/%d.%d" % (self.number, self.count)
            self.count += 1
            body = text(path) + text("") + acl(OPEN_ACL) + i32(1)
            record = self.ask([(1, path, body, {"value": b""})])[0]
            if record.error == 0:
                self.history.ephemerals.append(record)
            return None
        return self.ask([self.draw() for _ in range(self.rng.choice([1, 1, 2, 4]))])

    def end_session(self):
        session = self.session
        # It may be over from here on, whatever is answered.
        self.history.live.discard(session)
        self.history.gone[session] = None
        self.session, self.password, zxid = 0, bytes(16), self.zxid
        self.zxid = 0
        found = self.client.call(-11)
        self.history.gone[session] = max(zxid, found[1])
        self.drop()

    def lock(self):
        """Until anything goes wrong, which ends the session, too."""
        session = self.session
        body = text("/h/lock/l-") + text("") + acl(OPEN_ACL) + i32(3)
        try:
            mine = self.ask([(15, "/h/lock/l-", body, {})])[0]
            name = mine.path[len("/h/lock/"):].encode()
            while not self.history.is_over:
                listed = self.ask([(8, "/h/lock", text("/h/lock") + b"\0", {})])[0]
                if min(listed.value) == name:
                    break
                time.sleep(0.01)
            else:
                return self.end_session()
            grant = [time.time(), mine.stat["czxid"], None]
            try:
                value = self.value()
                self.ask([(5, NODES[0], text(NODES[0]) + text(value) + i32(-1),
                           {"value": value, "version": -1})])
                time.sleep(self.rng.choice([0, 0.01, 0.05]))
            finally:
                grant[2] = min(time.time(), self.heard_at + TIMEOUT_MS / 1000)
                self.history.grants.append(grant)
            return self.ask([(2, mine.path, text(mine.path) + i32(-1), {})])
        except (OSError, Closed):
            self.drop()
            while self.session == session and not self.history.is_over:
                try:
                    self.connect()
                    if self.client:
                        self.end_session()
                except (OSError, Closed):
                    self.drop()
                    time.sleep(0.02)


class History:
    def __init__(self):
        self.records, self.grants, self.ephemerals, self.flaws = [], [], [], []
        self.live, self.gone = set(), {}  # sessions; the zxid of the end, or None
        self.workers, self.is_over, self.guard = [], False, threading.Lock()

    def add(self, record):
        with self.guard:
            self.records.append(record)

    def violate(self, what):
        with self.guard:
            self.flaws.append(what)

    def begin(self, ports, count, seed):
        self.ports = ports
        client = Client(ports[0])
        for path in ["/h", "/h/e", "/h/lock"] + NODES:
            begun = time.time()
            answer = client.call(1, text(path) + text("first") + acl(OPEN_ACL) + i32(0))
            self.add(Record("create", path, begun, ended=time.time(), error=answer[2],
                            zxid=answer[1], value=b"first", client=-1))
        client.call(-11)
        self.workers = [Worker(self, i, ports, seed) for i in range(count)]
        [each.start() for each in self.workers]

    def give_up(self):
        self.is_over = True
        [each.join(20) for each in self.workers]

    def end(self):
        """Returns how many were answered. Raises where something does not hold."""
        self.give_up()
        self.read_all()
        self.check()
        if self.flaws:
            raise AssertionError("%d flaws: %s" % (len(self.flaws), "; ".join(self.flaws[:5])))
        answered = sum(1 for record in self.records if record.error is not None)
        print("%d answers, %d in doubt, %d events, %d sessions that ended, %d ephemeral nodes, "
              "%d grants" % (answered, len(self.records) - answered,
                             sum(len(record.events) for record in self.records), len(self.gone),
                             len(self.ephemerals), len(self.grants)))
        return answered

    def read_all(self):
        """What is there in the end, as of now."""
        until = time.time() + 20
        while True:
            try:
                client = Client(self.ports[0])
                client.call(9, text("/"))
                for path in NODES + [record.path for record in self.ephemerals]:
                    begun = time.time()
                    _, zxid, error, body = client.call(4, text(path) + b"\0")
                    record = Record("get", path, begun, ended=time.time(), client=-2,
                                    error=error, zxid=zxid, is_last=True)
                    if error == 0:
                        reader = Reader(body)
                        record.value, record.stat = reader.text(), reader.stat()
                    self.add(record)
                return client.call(-11)
            except (OSError, Closed):
                if time.time() > until:
                    raise
                time.sleep(0.05)

    def check(self):
        self.writes, self.doubts = collections.defaultdict(list), collections.defaultdict(list)
        for record in self.records:
            if record.kind not in ("create", "delete", "set"):
                continue
            if record.error is None:
                self.doubts[record.path].append(record)
            elif record.error == 0:
                self.writes[record.path].append(record)
        self.zxids = collections.defaultdict(list)
        for path, writes in self.writes.items():
            writes.sort(key=lambda record: record.zxid)
            self.zxids[path] = [record.zxid for record in writes]
        self.by_value = {record.value: record for record in self.records
                         if record.kind in ("create", "set") and record.value != b"first"}
        self.check_real_time()
        for record in self.records:
            if record.path not in NODES or record.error is None:
                continue
            if record.kind == "get":
                self.check_read(record)
            elif record.kind in ("create", "delete", "set"):
                self.check_write(record)
        self.check_sessions()
        self.check_ephemerals()
        self.check_grants()

    def before(self, path, zxid):
        """The last write there that is known, up to that zxid."""
        at = bisect.bisect_right(self.zxids[path], zxid)
        return self.writes[path][at - 1] if at > 0 else None

    def after(self, path, zxid):
        """The first one that is known, after it."""
        at = bisect.bisect_right(self.zxids[path], zxid)
        return self.writes[path][at] if at < len(self.writes[path]) else None

    def check_real_time(self):
        """P1, P2: in the order of the zxids, which are each one's own."""
        known = [r for r in self.records if r.kind in ("create", "delete", "set") and
                 r.error is not None]
        zxids = [record.zxid for record in known]
        if len(zxids) != len(set(zxids)):
            self.violate("P1: two writes have one zxid")
        ends = sorted(known, key=lambda record: record.ended)
        at, most = 0, 0
        for record in sorted(known, key=lambda record: record.begun):
            while at < len(ends) and ends[at].ended < record.begun:
                most = max(most, ends[at].zxid)
                at += 1
            if record.zxid <= most:
                self.violate("P1: 0x%x began after 0x%x had ended" % (record.zxid, most))
        last = max([r.zxid for r in self.records if getattr(r, "is_last", False)], default=None)
        if last is not None and zxids and max(zxids) > last:
            self.violate("P2: 0x%x is not there in the end" % max(zxids))

    def check_read(self, read):
        last = self.before(read.path, read.zxid)
        doubts = [r for r in self.doubts[read.path] if r.begun <= read.ended]
        what = "%r, after %r" % (read, last)
        if read.error == -101:
            is_there = last is not None and last.kind != "delete"
            if is_there and not any(r.kind == "delete" for r in doubts):
                self.violate("P2: it is gone: " + what)
            return
        if read.error != 0:
            return self.violate("P4: an error: " + what)
        if read.value != b"first":
            writer = self.by_value.get(read.value)
            if writer is None or writer.path != read.path or writer.begun > read.ended or \
                    writer.error not in (None, 0):
                return self.violate("P3: nobody has written %s" % what)
            if writer.error == 0 and writer.zxid != read.stat["mzxid"]:
                return self.violate("P4: it was written by another zxid: " + what)
        if read.stat["mzxid"] > read.zxid:
            return self.violate("P4: it is of later: " + what)
        if last is not None and last.zxid > read.stat["mzxid"]:
            self.violate("P4: it is of before: " + what)

    def check_write(self, write):
        last = self.before(write.path, write.zxid - 1)
        doubts = self.doubts[write.path]
        is_there = last is not None and last.kind != "delete"
        may_be = is_there or any(r.kind == "create" for r in doubts)
        may_not_be = not is_there or any(r.kind == "delete" for r in doubts)
        what = "%r, after %r" % (write, last)
        wanted = {("create", 0): may_not_be, ("create", -110): may_be, ("delete", 0): may_be,
                  ("delete", -101): may_not_be, ("set", 0): may_be, ("set", -101): may_not_be,
                  ("set", -103): may_be and write.version != -1}
        if not wanted.get((write.kind, write.error), False):
            return self.violate("P1: %s" % what)
        if write.kind != "set" or write.error != 0:
            return None
        if write.version != -1 and write.stat["version"] != write.version + 1:
            return self.violate("P1: another version than was asked for: " + what)
        if last is None or last.kind == "delete" or last.client == -1:
            return None
        before = last.stat["version"] if last.stat else 0
        czxid = last.stat["czxid"] if last.stat else last.zxid
        between = write.stat["version"] - before - 1
        most = sum(1 for r in doubts if r.kind == "set")
        if czxid == write.stat["czxid"] and not 0 <= between <= most:
            self.violate("P1: %d writes that nobody has made: %s" % (between, what))
        return None

    def check_sessions(self):
        """P4, P7, P8, by the order in which each client has heard."""
        zxids, armed = {}, {}
        for record in self.records:
            if record.error is None or record.client < 0:
                continue
            place = (record.client, record.connection)
            watches = armed.setdefault(place, {})
            for kind, _, path in record.events:
                if path not in watches:
                    self.violate("P8: an event that nobody has asked for: %s" % path)
                else:
                    self.check_event(path, EVENTS.get(kind), watches.pop(path))
            if record.zxid > 0:
                if record.zxid < zxids.get(record.session, 0):
                    self.violate("P4: a session's zxid falls: %r" % record)
                zxids[record.session] = record.zxid
            for path, since in watches.items():
                write = self.before(path, record.zxid)
                if write is not None and write.zxid > since:
                    self.violate("P7: no event of %r before %r" % (write, record))
            if record.watch and record.error == 0 and record.path not in watches:
                watches[record.path] = record.zxid

    def check_event(self, path, kind, since):
        first = self.after(path, since)
        if self.doubts[path]:
            return
        if first is None or first.kind != kind:
            self.violate("P8: %s of %s, and the first change is %r" % (kind, path, first))

    def check_ephemerals(self):
        last = {r.path: r for r in self.records if getattr(r, "is_last", False)}
        for made in self.ephemerals:
            found = last.get(made.path)
            if found is None:
                continue
            is_over = made.session in self.gone
            if found.error == 0 and self.gone.get(made.session) is not None:
                self.violate("P9: %s outlives its session" % made.path)
            if found.error == 0 and found.stat["owner"] != made.session:
                self.violate("P9: %s has another owner" % made.path)
            silence = found.ended - self.heard_at(made.session)
            if found.error != 0 and not is_over and silence < TIMEOUT_MS / 1000:
                self.violate("P9: %s goes before its session" % made.path)

    def heard_at(self, session):
        return max((w.heard_at for w in self.workers if w.session == session), default=0)

    def check_grants(self):
        grants = sorted(self.grants)
        for before, after in zip(grants, grants[1:]):
            if after[1] <= before[1]:
                self.violate("P11: a token falls: %r, %r" % (before, after))
            if after[0] < before[2]:
                self.violate("P11: a grant while the holder is certain: %r, %r" % (before, after))


def self_test():
    """Histories with one flaw each: who does not find it is worth nothing."""

    def made(*more):
        history, path = History(), NODES[0]

        def record(kind, begun, zxid, **named):
            named.setdefault("error", 0)
            history.add(Record(kind, named.pop("path", path), begun, ended=begun + 0.5, zxid=zxid,
                               **named))

        def stat(mzxid, version):
            return {"czxid": 1, "mzxid": mzxid, "version": version, "owner": 0}

        record("create", 1, 1, value=b"a", session=7)
        record("set", 2, 2, value=b"b", version=-1, stat=stat(2, 1), session=7)
        record("get", 3, 2, value=b"b", stat=stat(2, 1), session=7, watch=True, connection=1)
        for each in more:
            each(history, record, stat)
        history.check()
        return history.flaws

    flaws = {
        "P1": [lambda h, r, s: r("set", 4, 1, value=b"c", version=-1, stat=s(1, 2)),
               lambda h, r, s: r("set", 4, 5, value=b"c", version=-1, stat=s(5, 4)),
               lambda h, r, s: r("create", 4, 5, value=b"c")],
        "P2": [lambda h, r, s: r("get", 4, 2, error=-101),
               lambda h, r, s: r("get", 4, 1, is_last=True, value=b"a", stat=s(1, 0))],
        "P3": [lambda h, r, s: r("get", 4, 2, value=b"x", stat=s(2, 1))],
        "P4": [lambda h, r, s: r("get", 4, 2, value=b"a", stat=s(1, 0)),
               lambda h, r, s: r("get", 4, 1, value=b"a", stat=s(1, 0), session=7)],
        "P7": [lambda h, r, s: (r("set", 4, 3, value=b"c", version=-1, stat=s(3, 2), client=1),
                                r("get", 5, 3, value=b"c", stat=s(3, 2), connection=1))],
        "P8": [lambda h, r, s: r("get", 4, 2, value=b"b", stat=s(2, 1), connection=1,
                                 events=[(3, 3, NODES[0])]),
               lambda h, r, s: r("get", 4, 2, value=b"b", stat=s(2, 1), connection=1,
                                 events=[(3, 3, NODES[1])])],
        "P9": [lambda h, r, s: (h.ephemerals.append(Record("create", "/h/e/1", 4, session=9)),
                                h.gone.update({9: 4}),
                                r("get", 5, 5, path="/h/e/1", value=b"", is_last=True,
                                  stat={"owner": 9}))],
        "P11": [lambda h, r, s: h.grants.extend([[1, 5, 2], [3, 4, 4]]),
                lambda h, r, s: h.grants.extend([[1, 5, 3], [2, 6, 4]])],
    }
    sound = made()
    assert not sound, sound
    for name, histories in flaws.items():
        for each in histories:
            found = made(each)
            assert any(flaw.startswith(name + ":") for flaw in found), (name, found)
