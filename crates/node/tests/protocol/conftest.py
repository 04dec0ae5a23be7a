"""Starts real nodes for the conformance tests of the wire protocol.

    pip install -r requirements.txt
    ROOMCAST_BIN=target/release/roomcast pytest crates/node/tests/protocol
"""

import http.client
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from client import DEADLINE, Client
from ports import free_ports


@pytest.fixture(scope="session")
def binary():
    path = os.environ.get("ROOMCAST_BIN")
    if not path or not Path(path).is_file():
        pytest.exit(f"ROOMCAST_BIN must be the path of the roomcast binary, not {path!r}", returncode=2)
    return str(Path(path).resolve())


def environment():
    """This process' environment without the options that a developer may have set for another node."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}


class Node:
    """One `roomcast serve --demo` process."""

    def __init__(self, binary, options, log):
        self.log = log
        self.port, self.internal_port = free_ports(2)
        command = [binary, "serve", "--demo", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--internal-listen", f"127.0.0.1:{self.internal_port}", *options]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment())
        self.pid = self.process.pid

    def wait_until_ready(self):
        ends = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < ends:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.01)
        pytest.fail(f"the node is not ready (exit status {self.process.poll()}):\n{self.log.read_text()}")

    def get(self, path):
        """Status and body of a GET from the internal listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.internal_port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait_for_exit(self, timeout=DEADLINE):
        return self.process.wait(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def resident_bytes(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def start_node(binary, tmp_path_factory):
    nodes = []

    def start(*options):
        node = Node(binary, options, tmp_path_factory.mktemp("node") / "output.log")
        nodes.append(node)
        node.wait_until_ready()
        return node

    yield start
    for node in nodes:
        node.kill()


@pytest.fixture(scope="module")
def node(start_node):
    """The node of a module, with default options. A module that needs others has its own fixture of this name."""
    return start_node()


@pytest.fixture
def connect():
    clients = []

    def connect(node):
        client = Client(node.port)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close_socket()
