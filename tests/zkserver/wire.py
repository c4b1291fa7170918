"""A raw client of ZooKeeper's protocol, and servers to try it on, for the tests beside this file.

It sends whatever it is told to, also what no client library would.
"""
import os
import random
import re
import signal
import socket
import struct
import subprocess
import time

OPEN_ACL = [(31, b"world", b"anyone")]


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def fails(error, call, *arguments, **named):
    try:
        found = call(*arguments, **named)
    except error:
        return
    raise AssertionError("%s is not raised, but %r" % (error.__name__, found))


def wait_until(condition, what, seconds=20):
    until = time.time() + seconds
    while not condition():
        expect(time.time() < until, "never: " + what)
        time.sleep(0.02)


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def text(value):
    if value is None:
        return i32(-1)
    if isinstance(value, str):
        value = value.encode()
    return i32(len(value)) + value


def acl(entries):
    if entries is None:
        return i32(-1)
    return i32(len(entries)) + b"".join(i32(p) + text(s) + text(i) for p, s, i in entries)


class Closed(Exception):
    """The server has closed the connection."""


class Client:
    def __init__(self, port, timeout_ms=10000, session=0, password=b"\0" * 16, zxid=0,
                 read_only=True, greet=True):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bytes, self.xid, self.zxid, self.events = b"", 0, 0, []
        if greet:
            self.greet(timeout_ms, session, password, zxid, read_only)

    def greet(self, timeout_ms, session, password, zxid, read_only=True):
        self.send_frame(i32(0) + i64(zxid) + i32(timeout_ms) + i64(session) + text(password) +
                        (b"\0" if read_only else b""))
        self.hello = self.frame()
        self.timeout_ms, self.session = struct.unpack(">iq", self.hello[4:16])
        self.password = self.hello[20:36]

    def send_frame(self, frame):
        self.socket.sendall(i32(len(frame)) + frame)

    def frame(self):
        while len(self.bytes) < 4 or len(self.bytes) < 4 + self.length():
            try:
                piece = self.socket.recv(1 << 16)
            except (ConnectionResetError, BrokenPipeError):
                piece = b""
            if not piece:
                raise Closed()
            self.bytes += piece
        length = self.length()
        frame, self.bytes = self.bytes[4:4 + length], self.bytes[4 + length:]
        return frame

    def length(self):
        return struct.unpack(">i", self.bytes[:4])[0]

    def send(self, kind, body=b"", xid=None):
        if xid is None:
            self.xid += 1
            xid = self.xid
        self.send_frame(i32(xid) + i32(kind) + body)
        return xid

    def reply(self):
        """Returns (xid, zxid, error, body) of the next answer; events before it are kept."""
        while True:
            frame = self.frame()
            xid, zxid, error = struct.unpack(">iqi", frame[:16])
            if xid != -1:
                return xid, zxid, error, frame[16:]
            kind, state = struct.unpack(">ii", frame[16:24])
            self.events.append((kind, state, frame[28:].decode()))

    def call(self, kind, body=b"", xid=None):
        sent = self.send(kind, body, xid)
        answer = self.reply()
        assert answer[0] == sent, "the answer to %d is of %d" % (sent, answer[0])
        if answer[1] > 0:
            self.zxid = answer[1]
        return answer

    def ping(self):
        return self.call(11, xid=-2)

    def close(self):
        self.socket.close()


def word(port, command):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(20)
        connection.sendall(command.encode())
        answer = b""
        while True:
            piece = connection.recv(1 << 16)
            if not piece:
                return answer.decode()
            answer += piece


class Ports:
    """Ports below those the system gives to connections, for which a server that starts later
    would find its own taken. A process has a block of them, and holds the block's first."""

    BLOCK = 200

    def __init__(self):
        self.held, self.next, self.last = None, 0, 0

    def block(self):
        try:
            with open("/proc/sys/net/ipv4/ip_local_port_range") as said:
                end = int(said.read().split()[0])
        except OSError:
            end = 32768
        blocks = list(range(10000, max(end, 20000) - self.BLOCK, self.BLOCK))
        random.shuffle(blocks)
        for first in blocks:
            held = socket.socket()
            try:
                held.bind(("127.0.0.1", first))
                held.listen(1)
            except OSError:
                held.close()
                continue
            self.held, self.next, self.last = held, first, first + self.BLOCK - 1
            return
        raise RuntimeError("no ports: every block from 10000 on is held")

    def take(self):
        while True:
            if self.next == self.last:
                self.block()
            self.next += 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self.next))
                    return self.next
                except OSError:
                    pass


free_port = Ports().take


class Server:
    """A process that listens for clients; ended by its pid."""

    def __init__(self, command, port, log, env=None):
        self.command, self.port, self.log, self.env = command, port, log, env
        self.process = None

    def launch(self):
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=out,
                                            stdin=subprocess.DEVNULL, env=self.env)

    def start(self, seconds=30):
        self.launch()
        return self.ready(seconds)

    def ready(self, seconds=30):
        until = time.time() + seconds
        while time.time() < until:
            try:
                if "Mode:" in word(self.port, "srvr"):
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        with open(self.log, errors="replace") as said:
            raise RuntimeError("no server: " + said.read()[-2000:])

    def stop(self, number=signal.SIGTERM):
        if self.process is None:
            return None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code


def zkserver(program, directory, config="", port=None):
    """A server of ours with these lines in its zoo.cfg, standalone unless they say otherwise."""
    os.makedirs(directory, exist_ok=True)
    port = port or free_port()
    path = os.path.join(directory, "zoo.cfg")
    with open(path, "w") as out:
        out.write("tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=%s/data\nclientPort=%d\n"
                  "4lw.commands.whitelist=*\nmaxClientCnxns=0\n%s" % (directory, port, config))
    return Server([program, path], port, os.path.join(directory, "log"))


SMALL_JAVA = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def zookeeper(directory, config="", properties=(), port=None, java=SMALL_JAVA):
    """A real one, or None where Debian's package zookeeper, or a java, is not installed."""
    jar = "/usr/share/java/zookeeper.jar"
    if not os.path.exists(jar) or not any(
            os.access(os.path.join(folder, "java"), os.X_OK)
            for folder in os.environ.get("PATH", "").split(":")):
        return None
    os.makedirs(directory, exist_ok=True)
    port = port or free_port()
    path = os.path.join(directory, "zoo.cfg")
    with open(path, "w") as out:
        out.write("tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=%s/data\nclientPort=%d\n"
                  "clientPortAddress=127.0.0.1\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n"
                  "admin.enableServer=false\n%s" % (directory, port, config))
    command = ["java"] + list(java) + ["-D" + each for each in properties]
    command += ["-cp", "/etc/zookeeper/conf:" + jar,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain", path]
    return Server(command, port, os.path.join(directory, "log"))


class Reader:
    """Takes an answer's body apart."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def i32(self):
        self.at += 4
        return struct.unpack(">i", self.data[self.at - 4:self.at])[0]

    def i64(self):
        self.at += 8
        return struct.unpack(">q", self.data[self.at - 8:self.at])[0]

    def text(self):
        size = self.i32()
        if size < 0:
            return None
        self.at += size
        return self.data[self.at - size:self.at]

    def names(self):
        return [self.text() for _ in range(self.i32())]

    def stat(self):
        names = ("czxid", "mzxid", "ctime", "mtime", "version", "cversion", "aversion", "owner",
                 "length", "children", "pzxid")
        values = struct.unpack(">qqqqiiiqiiq", self.data[self.at:self.at + 68])
        self.at += 68
        return dict(zip(names, values))

    def acl(self):
        return [(self.i32(), self.text(), self.text()) for _ in range(self.i32())]

    def left(self):
        return len(self.data) - self.at


def version_of(answer):
    return re.search(r"version: ([0-9.]+)", answer).group(1)
