"""The backends of the examples work as their README describes, each with a real node.

ROOMCAST_BIN names the node.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "crates/node/tests/protocol"))

from client import Client, Request, Reset  # noqa: E402
from ports import free_ports  # noqa: E402

DEADLINE = 60


class Example:
    """The processes of `run`, and the tokens that it prints."""

    def __init__(self, language):
        self.node, self.internal, self.backend = free_ports(3)
        self.process = subprocess.Popen(
            [ROOT / "examples/backends/run", language],
            # The node reads each ROOMCAST_ variable as an option of its own, and rejects those of the other tests.
            env={name: value for name, value in os.environ.items() if name == "ROOMCAST_BIN" or not name.startswith("ROOMCAST_")}
            | {
                "PORT": str(self.backend),
                "ROOMCAST_LISTEN": f"127.0.0.1:{self.node}",
                "ROOMCAST_INTERNAL_LISTEN": f"127.0.0.1:{self.internal}",
                "API_URL": f"http://127.0.0.1:{self.internal}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.output = b""
        self.wait_for(lambda: len(self.tokens()) == 2)
        for port in (self.node, self.backend):
            self.wait_for(lambda port=port: socket.socket().connect_ex(("127.0.0.1", port)) == 0)

    def tokens(self):
        return re.findall(rb"The page of \w+: http://127.0.0.1:\d+/#(\S+)\n", self.output)

    def wait_for(self, condition):
        ends = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None and time.monotonic() < ends, self.output.decode()
            if select.select([self.process.stdout], [], [], 0.05)[0]:
                self.output += os.read(self.process.stdout.fileno(), 65536)

    def client(self, number):
        return Client(self.node, Authorization=f"Bearer {self.tokens()[number].decode()}")

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(DEADLINE)
        self.process.stdout.close()


@pytest.fixture(params=["python", "node", "go", "php"], scope="module")
def example(request):
    running = Example(request.param)
    yield running
    running.close()


def test_a_chat_with_moderation_and_an_assistant_that_stops(example):
    ann, bob = example.client(0), example.client(1)
    assert ann.call("rooms/join/chat") == b""
    assert bob.call("chat.send", b"hello") == b""
    event = ann.recv()
    assert event.name == "message" and json.loads(event.payload) == {"from": "bob", "text": "hello"}

    refused = json.loads(bob.call("chat.send", b"oh darn"))["error"]
    assert refused == {"code": "INVALID_ARGUMENT", "message": 'the word "darn" is not allowed', "details": {"word": "darn"}}

    refused = json.loads(bob.call("chat.send", b"\xff"))["error"]
    assert (refused["code"], refused["message"]) == ("INVALID_ARGUMENT", "the text is not UTF-8")

    answer = bob.call("assistant.ask", b"who are you?", timeout=DEADLINE)
    assert answer.startswith(b" I am only an example") and answer.endswith(b" stop me .")

    bob.send(Request(7, "assistant.ask", b"again"))
    wait_until(lambda: ann.call("assistant.running") == b"1")
    bob.send(Reset(7))
    wait_until(lambda: ann.call("assistant.running") == b"0")
    example.wait_for(lambda: b"cancelled" in example.output)


def test_the_backend_serves_the_page_and_rejects_requests_that_no_node_has_signed(example):
    def status(request):
        with socket.create_connection(("127.0.0.1", example.backend)) as connection:
            connection.sendall(request.encode() + b"Host: example\r\nConnection: close\r\n\r\n")
            return int(connection.makefile("rb").readline().split()[1])

    assert status("GET / HTTP/1.1\r\n") == 200
    assert status("GET /client.js HTTP/1.1\r\n") == 200
    assert status("POST /rpc/assistant.running HTTP/1.1\r\nRoomcast-User: ann\r\nContent-Length: 0\r\n") == 401


def wait_until(condition):
    ends = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < ends
