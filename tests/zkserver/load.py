#!/usr/bin/env python3
"""Loads zkserver and prints what it bears; no test.

    load.py ZKSERVER [--connections=N] [--clients=N] [--row=N] [--seconds=N]

Opens many connections and pings on all of them; then so many clients send writes, and then reads,
in rows of so many, and wait for all answers before the next row.
"""
import argparse
import resource
import shutil
import tempfile
import time

from wire import Client, OPEN_ACL, acl, i32, text, zkserver


def frame(xid, kind, body=b""):
    body = i32(xid) + i32(kind) + body
    return i32(len(body)) + body


def answers(client, count):
    for _ in range(count):
        client.frame()


def answers_of(clients):
    for client in clients:
        client.frame()


def rounds(clients, requests, count, seconds):
    begun, done = time.time(), 0
    while time.time() - begun < seconds:
        for client, request in zip(clients, requests):
            client.socket.sendall(request)
        for client in clients:
            answers(client, count)
        done += count * len(clients)
    return done / (time.time() - begun)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("--connections", type=int, default=10000)
    arguments.add_argument("--clients", type=int, default=100)
    arguments.add_argument("--row", type=int, default=10)
    arguments.add_argument("--seconds", type=float, default=3)
    given = arguments.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    directory = tempfile.mkdtemp(prefix="zkserver.")
    server = zkserver(given.program, directory, "maxSessionTimeout=600000\n").start()
    try:
        begun = time.time()
        clients = [Client(server.port, greet=False) for _ in range(given.connections)]
        for client in clients:
            client.send_frame(i32(0) + bytes(8) + i32(600000) + bytes(8) + text(bytes(16)))
        answers_of(clients)
        print("%d connections in %.1f s" % (len(clients), time.time() - begun))
        pings = [frame(-2, 11)] * len(clients)
        print("%.0f pings a second" % rounds(clients, pings, 1, given.seconds))
        with open("/proc/%d/status" % server.process.pid) as status:
            print([line.split(":")[1].strip() for line in status if "VmRSS" in line][0])
        clients = clients[:given.clients]
        for i, client in enumerate(clients):
            client.call(1, text("/n%d" % i) + text("") + acl(OPEN_ACL) + i32(0))
        paths = [text("/n%d" % i) for i in range(len(clients))]
        for name, kind, rest in (("sets", 5, text("x" * 100) + i32(-1)), ("gets", 4, b"\0")):
            rows = [frame(1, kind, path + rest) * given.row for path in paths]
            print("%.0f %s a second" % (rounds(clients, rows, given.row, given.seconds), name))
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
