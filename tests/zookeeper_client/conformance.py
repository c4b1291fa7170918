#!/usr/bin/env python3
"""The conformance cases over a client of a real ZooKeeper, which is started here, on the loopback and
in a scratch directory: the table in conformance.cpp says which of them differ there.

    conformance.py ZOOKEEPER_CLIENT_TESTS [ARGUMENTS of doctest's]

Exits with 77, which CTest reads as skipped, where Debian's package zookeeper is not installed.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "zkserver"))
from wire import zookeeper


def main():
    directory = tempfile.mkdtemp(prefix="coord_conformance_")
    server = zookeeper(directory, properties=["zookeeper.extendedTypesEnabled=true",
                                              "zookeeper.enforceQuota=true"])
    if server is None:
        print("skipped: Debian's package zookeeper is not installed")
        return 77
    try:
        server.start()
        place = dict(os.environ, COORD_ZOOKEEPER="127.0.0.1:%d" % server.port)
        return subprocess.call([sys.argv[1], "-ts=13 conformance"] + sys.argv[2:], env=place)
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
