#!/usr/bin/env python3
"""Starts zkserver and uses it with kazoo, the Python client of ZooKeeper, and with frames of its
own: recipes, sessions that are cut off and come back, bad input, kill -9, three servers.

    clients.py ZKSERVER [NAME ...]

Exits with 77, which CTest reads as skipped, where python3-kazoo is not installed.
"""
import json
import logging
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

from wire import (Client, Closed, OPEN_ACL, acl, expect, fails, free_port, i32, i64, text,
                  wait_until, word, zkserver)

try:
    from kazoo.client import KazooClient, KazooState
    from kazoo import exceptions as errors
    from kazoo.security import CREATOR_ALL_ACL, make_digest_acl
except ImportError:
    # A python3 that is not the system's own does not see the system's packages.
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-B"] + sys.argv)
    print("skipped: python3-kazoo is not installed")
    sys.exit(77)

logging.disable(logging.CRITICAL)


class Clients:
    """Clients that are closed in the end."""

    def __init__(self):
        self.all = []

    def __call__(self, *ports, **named):
        named.setdefault("timeout", 5)
        hosts = ",".join("127.0.0.1:%d" % port for port in ports)
        one = KazooClient(hosts=hosts, connection_retry={"max_tries": -1, "max_delay": 0.2},
                          **named)
        one.start(timeout=15)
        self.all.append(one)
        return one

    def close(self):
        for one in self.all:
            one.stop()
            one.close()


def operations(server, client):
    zk, other = client(server.port), client(server.port)
    expect(zk.create("/ops", b"1") == "/ops", "create")
    path, stat = zk.create("/ops/two", b"2", include_data=True)
    expect(stat.version == 0 and path == "/ops/two", "create2")
    data, stat = zk.get("/ops")
    expect(data == b"1" and stat.numChildren == 1 and stat.dataLength == 1, "get")
    expect(zk.set("/ops", b"3", version=0).version == 1, "set")
    fails(errors.BadVersionError, zk.set, "/ops", b"", version=0)
    fails(errors.NodeExistsError, zk.create, "/ops")
    fails(errors.NoNodeError, zk.create, "/none/x")
    fails(errors.NotEmptyError, zk.delete, "/ops")
    fails(errors.NoNodeError, zk.get, "/none")
    expect(zk.exists("/none") is None, "exists")
    zk.create("/ops/e", ephemeral=True)
    fails(errors.NoChildrenForEphemeralsError, zk.create, "/ops/e/x")
    expect(other.exists("/ops/e").ephemeralOwner == zk.client_id[0], "owner")
    names = [zk.create("/ops/s-", sequence=True) for _ in range(3)]
    expect(names == ["/ops/s-%010d" % (2 + i) for i in range(3)], "sequence")
    children, stat = zk.get_children("/ops", include_data=True)
    expect(len(children) == 5 and stat.cversion == 5, "children")
    expect(zk.sync("/ops") == "/ops", "sync")
    request = zk.transaction()
    request.create("/ops/t"), request.set_data("/ops", b"4"), request.check("/ops", 2)
    request.delete("/ops/t")
    done = request.commit()
    expect(done[0] == "/ops/t" and done[1].version == 2 and done[2:] == [True, True], "multi")
    request = zk.transaction()
    request.create("/ops/t"), request.check("/ops", 9), request.delete("/ops/two")
    kinds = [type(each) for each in request.commit()]
    expect(kinds == [errors.RolledBackError, errors.BadVersionError,
                     errors.RuntimeInconsistency], "multi that fails")
    expect(zk.exists("/ops/t") is None, "a multi is all or nothing")
    large = bytes(1000 * 1000)
    zk.create("/ops/large", large)
    expect(zk.get("/ops/large")[0] == large, "a large node")
    many = [zk.create_async("/ops/two/%d" % i, b"%d" % i) for i in range(1000)]
    expect([each.get() for each in many] == ["/ops/two/%d" % i for i in range(1000)], "pipelined")
    expect(len(zk.get_children("/ops/two")) == 1000, "many children")
    [each.get() for each in [zk.delete_async("/ops/two/%d" % i) for i in range(1000)]]
    zk.delete("/ops", recursive=True)


def access(server, client):
    zk, other = client(server.port), client(server.port)
    zk.add_auth("digest", "user:secret")
    zk.create("/access", b"1", acl=CREATOR_ALL_ACL)
    fails(errors.NoAuthError, other.get, "/access")
    fails(errors.NoAuthError, other.create, "/access/x")
    other.add_auth("digest", "user:secret")
    expect(other.get("/access")[0] == b"1", "the same credential")
    zk.set_acls("/access", [make_digest_acl("user", "secret", all=True),
                            make_digest_acl("guest", "x", read=True)])
    entries, stat = zk.get_acls("/access")
    expect(len(entries) == 2 and stat.aversion == 1, "set_acls")
    fails(errors.AuthFailedError, client(server.port).add_auth, "x509", "CN=none")
    zk.delete("/access")


def watches(server, client):
    zk, other = client(server.port), client(server.port)
    seen = []
    zk.create("/w")

    @zk.DataWatch("/w")
    def on_data(data, stat):
        seen.append(data)

    @zk.ChildrenWatch("/w")
    def on_children(children):
        seen.append(sorted(children))

    other.set("/w", b"1")
    other.create("/w/a")
    wait_until(lambda: b"1" in seen and ["a"] in seen, "both watches")
    fired = []
    zk.exists("/w/b", watch=fired.append)
    for _ in range(3):
        zk.get("/w/a", watch=fired.append)
    other.create("/w/b"), other.set("/w/a", b"x"), other.set("/w/a", b"y")
    wait_until(lambda: len(fired) >= 2, "one-shot watches")
    time.sleep(0.1)
    expect(sorted((each.type, each.path) for each in fired) ==
           [("CHANGED", "/w/a"), ("CREATED", "/w/b")], "each once: %r" % fired)
    other.delete("/w", recursive=True)


def recipes(server, client):
    zks = [client(server.port) for _ in range(4)]
    held = []

    def work(zk, who):
        for _ in range(3):
            with zk.Lock("/lock", who):
                held.append(who)
                time.sleep(0.001)
                held.append(who)

    threads = [threading.Thread(target=work, args=(zk, str(i))) for i, zk in enumerate(zks)]
    [each.start() for each in threads], [each.join(30) for each in threads]
    expect(len(held) == 24 and all(held[i] == held[i + 1] for i in range(0, 24, 2)), "lock")
    counter = [zk.Counter("/counter") for zk in zks[:2]]
    for _ in range(5):
        counter[0].__add__(2), counter[1].__sub__(1)
    expect(counter[0].value == 5, "counter")
    led = []
    elections = [zk.Election("/election", str(i)) for i, zk in enumerate(zks)]
    threads = [threading.Thread(target=each.run, args=(led.append, i))
               for i, each in enumerate(elections)]
    [each.start() for each in threads], [each.join(30) for each in threads]
    expect(sorted(led) == [0, 1, 2, 3], "election")
    queue = zks[0].Queue("/queue")
    [queue.put(b"%d" % i) for i in range(5)]
    expect([zks[1].Queue("/queue").get() for _ in range(5)] == [b"%d" % i for i in range(5)],
           "queue")
    parties = [zk.Party("/party", str(i)) for i, zk in enumerate(zks)]
    [each.join() for each in parties]
    expect(sorted(parties[0]) == ["0", "1", "2", "3"], "party")
    barriers = [zk.DoubleBarrier("/barrier", 4) for zk in zks]
    passed = []
    threads = [threading.Thread(target=lambda b=b: (b.enter(), passed.append(1), b.leave()))
               for b in barriers]
    [each.start() for each in threads], [each.join(30) for each in threads]
    expect(len(passed) == 4, "double barrier")
    semaphores = [zk.Semaphore("/semaphore", max_leases=2) for zk in zks[:3]]
    expect(semaphores[0].acquire() and semaphores[1].acquire(), "semaphore")
    fails(errors.LockTimeout, semaphores[2].acquire, timeout=0.2)
    semaphores[0].release()
    expect(semaphores[2].acquire(timeout=5), "released")


def sessions(server, client):
    watcher = client(server.port)
    one = Client(server.port, timeout_ms=4000)
    expect(one.timeout_ms == 4000, "timeout")
    one.call(1, text("/mine") + text("") + acl(OPEN_ACL) + i32(1))
    one.call(4, text("/mine") + b"\1")
    zxid = one.call(3, text("/absent") + b"\1")[1]
    one.close()
    time.sleep(0.2)
    expect(watcher.exists("/mine"), "a session outlives its connection")
    watcher.create("/absent"), watcher.set("/mine", b"2")
    wrong = Client(server.port, session=one.session, password=b"x" * 16)
    expect(wrong.timeout_ms == 0 and wrong.session == 0, "a wrong password")
    fails(Closed, wrong.frame)
    again = Client(server.port, session=one.session, password=one.password, zxid=zxid)
    expect(again.session == one.session, "taken up again")
    lists = [["/mine"], ["/absent"], []]
    body = i64(zxid) + b"".join(i32(len(l)) + b"".join(map(text, l)) for l in lists)
    expect(again.call(101, body, -8)[2] == 0, "setWatches")
    expect(sorted(again.events) == [(1, 3, "/absent"), (3, 3, "/mine")], "what was missed")
    newer = Client(server.port, session=one.session, password=one.password)
    fails(Closed, again.call, 11, b"", -2)
    future = Client(server.port, greet=False)
    future.send_frame(i32(0) + i64(1 << 62) + i32(4000) + i64(0) + text(bytes(16)))
    fails(Closed, future.frame)
    expect(newer.call(-11)[2] == 0, "close")
    fails(Closed, newer.frame)
    expect(not watcher.exists("/mine"), "its ephemeral nodes go")
    silent = Client(server.port, timeout_ms=1, read_only=False)
    expect(silent.timeout_ms == 4000 and len(silent.hello) == 36, "brought into the range")
    silent.call(1, text("/silent") + text("") + acl(OPEN_ACL) + i32(1))
    begun = time.time()
    wait_until(lambda: not watcher.exists("/silent"), "a silent session ends", 10)
    expect(time.time() - begun > 3, "and not before its time")
    watcher.delete("/absent")


def bad_input(server, client):
    good = Client(server.port)
    for bytes_ in (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\3abc", b"GET / HTTP/1.1\r\n",
                   struct.pack(">i", 0), struct.pack(">iiqiq", 24, 0, 0, 4000, 0)):
        one = Client(server.port, greet=False)
        one.socket.sendall(bytes_)
        fails(Closed, one.frame)
    one = Client(server.port)
    expect(one.call(4711)[1:3] == (-1, -6), "an unknown operation")
    expect(one.call(13, text("/") + i32(0))[2] == -6, "a check by itself")
    expect(one.call(4, b"")[2] == -5 and one.call(1, b"\0\0")[2] == -5, "a body cut off")
    expect(one.call(4, i32(1 << 30))[2] == -5, "a length that is too large")
    expect(one.call(14, i32(1) + b"\0" + i32(-1) + text("/x"))[2] == -5, "a multi cut off")
    expect(one.call(16, text(None) * 3 + i64(-1))[2] == -123, "reconfig")
    expect(one.call(4, text("/") + b"\0")[2] == 0, "it goes on")
    one.send_frame(b"\0\0")
    fails(Closed, one.frame)
    byte = Client(server.port)
    for each in i32(8) + i32(-2) + i32(11):
        byte.socket.sendall(bytes([each]))
        time.sleep(0.001)
    expect(byte.reply()[0] == -2, "a byte at a time")
    expect(good.call(4, text("/") + b"\0")[2] == 0, "others do not notice")


def words(server, client):
    zk = client(server.port)
    zk.create("/words", ephemeral=True)
    zk.exists("/words", watch=print)
    expect(word(server.port, "ruok") == "imok", "ruok")
    expect(word(server.port, "isro") == "rw", "isro")
    expect("Mode: standalone" in word(server.port, "srvr"), "srvr")
    expect("Clients:\n /127.0.0.1:" in word(server.port, "stat"), "stat")
    table = dict(line.split("\t") for line in word(server.port, "mntr").splitlines())
    expect(table["zk_server_state"] == "standalone" and int(table["zk_znode_count"]) >= 5 and
           int(table["zk_watch_count"]) == 1 and int(table["zk_ephemerals_count"]) == 1, "mntr")
    session = "0x%x" % zk.client_id[0]
    expect("clientPort=%d" % server.port in word(server.port, "conf"), "conf")
    expect("sid=" + session in word(server.port, "cons"), "cons")
    expect(session + ":\n\t/words" in word(server.port, "dump"), "dump")
    expect("1 connections watching 1 paths" in word(server.port, "wchs"), "wchs")
    expect(session + "\n\t/words" in word(server.port, "wchc"), "wchc")
    expect("/words\n\t" + session in word(server.port, "wchp"), "wchp")
    expect("zookeeper.version=3.8" in word(server.port, "envi"), "envi")
    expect("datadir_size: " in word(server.port, "dirs"), "dirs")
    expect("reset" in word(server.port, "crst") and "reset" in word(server.port, "srst"), "srst")
    expect(zk.server_version() >= (3, 8, 0), "server_version")


def killed(server, client):
    """kill -9, and again on the same files: what was acknowledged is there, sessions go on."""
    zk = client(server.port, timeout=10)
    states = []
    zk.add_listener(states.append)
    session = zk.client_id[0]
    zk.create("/killed", b"0", ephemeral=True)
    for i in range(1, 200):
        zk.set("/killed", b"%d" % i)
    expect("coord_snapshots_taken\t0\n" not in word(server.port, "mntr"), "snapshots")
    server.stop(signal.SIGKILL)
    wait_until(lambda: KazooState.SUSPENDED in states, "suspended")
    server.start()
    wait_until(lambda: states[-1] == KazooState.CONNECTED, "connected again")
    expect(zk.client_id[0] == session and KazooState.LOST not in states, "the same session")
    expect(zk.get("/killed")[0] == b"199", "what was acknowledged")


def limits(server, client):
    """Of a server of its own, whose zoo.cfg says more."""
    home = os.path.join(os.path.dirname(server.log), "other")
    other = zkserver(server.command[0], home, "maxClientCnxns=3\nskipACL=yes\njute.maxbuffer=5000\n"
                     "4lw.commands.whitelist=srvr\nextendedTypesEnabled=true\n").start()
    try:
        expect("not in the whitelist" in word(other.port, "stat"), "the whitelist")
        zks = [Client(other.port) for _ in range(3)]
        fourth = Client(other.port, greet=False)
        fails((Closed, OSError), fourth.call, 11)
        zks[0].call(1, text("/a") + text("x") + acl([(1, b"digest", b"a:b")]) + i32(0))
        expect(zks[1].call(5, text("/a") + text("y") + i32(-1))[2] == 0, "skipACL")
        expect(zks[1].call(21, text("/t") + text("") + acl(OPEN_ACL) + i32(5) + i64(1000))[2] == 0,
               "a ttl")
        fails((Closed, OSError), zks[2].call, 5, text("/a") + text(bytes(6000)) + i32(-1))
        wait_until(lambda: works(lambda: Client(other.port)), "there is room again")
    finally:
        expect(other.stop() == 0, "its end")
    wrong = zkserver(server.command[0], home + "2", "tickTime=none\n")
    said = subprocess.run(wrong.command, stderr=subprocess.PIPE, text=True)
    expect(said.returncode == 1 and "line 8: tickTime" in said.stderr, said.stderr)


def http(server, client):
    """The page, and what a program reads there."""
    zk = client(server.port)
    zk.create("/http", b"secret", ephemeral=True)
    port = int(re.search(r"HTTP at 127.0.0.1, port ([0-9]+)", open(server.log).read()).group(1))

    def get(path):
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, path), timeout=20) as answer:
            return answer.read().decode()

    page = get("/?path=/http")
    expect("0x%x" % zk.client_id[0] in page and "<h2>/http</h2>" in page, page)
    expect("secret" not in page, "no data")
    state = json.loads(get("/state"))
    expect(state["serving"] and state["role"] == "LEADING", state)
    expect("\nzk_ephemerals_count 1\n" in get("/metrics"), "Prometheus")
    expect(json.loads(get("/commands/monitor"))["znode_count"] >= 5, "monitor")
    for each in json.loads(get("/commands"))["commands"]:
        expect(json.loads(get("/commands/" + each))["error"] is None, each)
    fails(urllib.error.HTTPError, get, "/commands/none")
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    expect(zk.exists("/http"), "clients do not notice")
    [each.close() for each in silent]
    expect("zkserver" in get("/"), "and it goes on")


def script(server, client):
    """zkserver.sh, beside a server that it has nothing to do with."""
    home = os.path.join(os.path.dirname(server.log), "script")
    other = zkserver(server.command[0], home)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                        "../../examples/zkserver/zkserver.sh")

    def do(verb):
        done = subprocess.run(["bash", path, verb, other.command[1]], text=True, timeout=30,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=dict(os.environ, ZKSERVER=server.command[0]))
        return done.returncode, done.stdout

    try:
        expect(do("status")[0] == 1, "it does not run")
        for verb, said in (("start", "has started"), ("status", "Mode: standalone"),
                           ("start", "runs already"), ("restart", "has started"),
                           ("status", "Mode: standalone")):
            code, text_ = do(verb)
            expect(code == 0 and said in text_, "%s: %s" % (verb, text_))
    finally:
        expect(do("stop")[0] == 0 and do("status")[0] == 1, "it has stopped")
    expect(word(server.port, "ruok") == "imok", "the other one goes on")


def works(call):
    try:
        call()
        return True
    except (Closed, OSError):
        return False


def command_lines(server, client):
    """The C client's and the Java client's, where they are installed."""
    c_client, java_client = "/usr/lib/zookeeper/bin/cli_mt", "/usr/share/zookeeper/bin/zkCli.sh"
    if os.path.exists(c_client):
        talk = "create /c\nset /c one\nget /c\nls /\nquit\n"
        said = run([c_client, "127.0.0.1:%d" % server.port], talk)
        expect("value_len = 3" in said and "\tzookeeper" in said, said)
    if os.path.exists(java_client) and shutil.which("java"):
        talk = ("create /java one\nget -w /java\nset /java two\ncreate -s -e /java/e x\n"
                "addWatch -m PERSISTENT_RECURSIVE /java\ncreate /java/x\nls -R /java\nquit\n")
        said = run([java_client, "-server", "127.0.0.1:%d" % server.port], talk)
        for each in ("Created /java", "type:NodeDataChanged path:/java", "/java/e0000000000",
                     "type:NodeCreated path:/java/x"):
            expect(each in said, "%s: %s" % (each, said))


def run(command, talk):
    """What a program says to lines that are typed slowly."""
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    if "zkCli" not in command[0]:
        for line in talk.splitlines(True):
            time.sleep(0.1)
            program.stdin.write(line)
            program.stdin.flush()
        talk = None
    try:
        return program.communicate(talk, timeout=30)[0]
    except subprocess.TimeoutExpired:
        program.kill()
        raise


def three_servers(program, directory, client):
    """And a fourth one that observes."""
    peers = [(free_port(), free_port()) for _ in range(4)]
    lines = "".join("server.%d=127.0.0.1:%d:%d%s\n" % (i + 1, *ports, ":observer" if i > 2 else "")
                    for i, ports in enumerate(peers))
    servers = []
    for i in range(4):
        home = os.path.join(directory, "server%d" % (i + 1))
        servers.append(zkserver(program, home, lines))
        os.makedirs(home + "/data")
        with open(home + "/data/myid", "w") as out:
            out.write("%d\n" % (i + 1))
    starting = [threading.Thread(target=each.start) for each in servers]
    [each.start() for each in starting], [each.join(30) for each in starting]
    try:
        modes = [word(each.port, "srvr").split("Mode: ")[1].split()[0] for each in servers]
        expect(sorted(modes) == ["follower", "follower", "leader", "observer"],
               "roles: %r" % modes)
        far = client(servers[3].port, timeout=10)
        far.create("/far", ephemeral=True)
        far.sync("/")
        zks = [client(each.port, timeout=10) for each in servers[:3]]
        zks[0].create("/three", b"0")
        zks[1].sync("/three")
        expect(zks[1].get("/three")[0] == b"0", "at another server")
        config = zks[2].get("/zookeeper/config")[0].decode()
        expect("server.2=127.0.0.1:%d:%d:participant" % peers[1] in config, config)
        everywhere = client(*[each.port for each in servers], timeout=10)
        session = everywhere.client_id[0]
        everywhere.create("/three/mine", ephemeral=True)
        leader = modes.index("leader")
        servers[leader].stop(signal.SIGKILL)
        for i in range(30):
            everywhere.retry(everywhere.set, "/three", b"%d" % i)
        expect(everywhere.client_id[0] == session, "the session goes on")
        expect(everywhere.exists("/three/mine"), "with its nodes")
        far.retry(far.sync, "/")
        expect(far.get("/three")[0] == b"29" and far.exists("/far"), "the observer goes on")
        servers[leader].start()
        wait_until(lambda: zks[leader].connected, "its client is back")
        zks[leader].retry(zks[leader].sync, "/three")
        expect(zks[leader].retry(zks[leader].get, "/three")[0] == b"29", "it has caught up")
    finally:
        for each in servers:
            each.stop()


CONFIGS = {http: "admin.enableServer=true\nadmin.serverPort=0\n",
           killed: "snapCount=20\n"}  # so that it has more than a log to start from
TESTS = [operations, access, watches, recipes, sessions, bad_input, words, http,
         killed, limits, script, command_lines]


def main():
    program, names = sys.argv[1], sys.argv[2:]
    directory = tempfile.mkdtemp(prefix="zkserver.")
    failed = []
    for test in TESTS + [three_servers]:
        if names and test.__name__ not in names:
            continue
        client, server = Clients(), None
        home = os.path.join(directory, test.__name__)
        begun = time.time()
        try:
            if test is three_servers:
                test(program, home, client)
            else:
                server = zkserver(program, home, CONFIGS.get(test, "")).start()
                test(server, client)
        except Exception as error:
            failed.append(test.__name__)
            traceback.print_exc()
            print("%s: %s %s" % (test.__name__, type(error).__name__, error))
        client.close()
        code = server.stop() if server else 0
        if code:
            failed.append(test.__name__)
            print("%s: the server ended with %d" % (test.__name__, code))
        print("%-15s %.1f s" % (test.__name__, time.time() - begun))
    shutil.rmtree(directory, ignore_errors=True)
    print("failed: " + ", ".join(failed) if failed else "all is well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
