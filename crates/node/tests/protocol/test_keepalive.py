"""The server pings, and drops a connection that it does not hear from."""

import time

import pytest
from client import BINARY, PING, PONG, Closed, Notify, Request, Response, wait_for_running, websocket_frame

INTERVAL = 0.3
PAUSE = 0.1  # between two signs of life
LONG_ENOUGH = 5 * INTERVAL  # a silent connection would be dropped in less than half of it


@pytest.fixture(scope="module")
def node(start_node):
    return start_node("--ping-interval", "300ms", "--pong-timeout", "300ms")


def expect_drop(client):
    """The server ends the connection; whether it says so with a Close first is open."""
    try:
        while not isinstance(client.recv(), Closed):
            pass
    except (EOFError, ConnectionError):
        return
    client.expect_end()


def test_the_server_pings_again_and_again(node, connect):
    client = connect(node)
    for _ in range(4):
        frame = client.recv_websocket()
        assert frame.opcode == PING
        client.send_websocket(PONG, frame.payload)


def test_a_client_that_answers_pings_stays_connected(node, connect):
    client = connect(node)
    client.expect_silence(LONG_ENOUGH)
    assert client.call("echo", b"alive") == b"alive"


def test_a_client_that_does_not_answer_pings_is_dropped_and_its_calls_are_cancelled(node, connect):
    client, observer = connect(node), connect(node)
    client.answers_pings = False
    client.send(Request(1, "long"))
    wait_for_running(observer, 1)
    wait_for_running(observer, 0)
    expect_drop(client)


def test_a_client_that_stopped_reading_and_writing_is_dropped_and_its_calls_are_cancelled(node, connect):
    half_open, observer = connect(node), connect(node)
    half_open.send(Request(1, "long"))
    for _ in range(30):
        half_open.send(Notify("ping", bytes(65536)))
    wait_for_running(observer, 1)
    wait_for_running(observer, 0)


def test_any_message_counts_as_a_sign_of_life(node, connect):
    client = connect(node)
    client.answers_pings = False
    ends = time.monotonic() + LONG_ENOUGH
    while time.monotonic() < ends:
        client.send(Notify("ping", b"x"))
        assert client.recv() == Notify("pong", b"x")
        time.sleep(PAUSE)
    assert client.call("echo", b"alive") == b"alive"


def test_bytes_of_an_unfinished_frame_count_as_a_sign_of_life(node, connect):
    client = connect(node)
    client.answers_pings = False
    frame = websocket_frame(BINARY, Request(1, "echo", b"in pieces").encode())
    pause = LONG_ENOUGH / len(frame)
    for byte in frame:
        client.send_bytes(bytes([byte]))
        time.sleep(pause)
    assert client.recv() == Response(1, b"in pieces")


def test_a_ping_from_the_client_counts_as_a_sign_of_life(node, connect):
    client = connect(node)
    client.answers_pings = False
    ends = time.monotonic() + LONG_ENOUGH
    while time.monotonic() < ends:
        client.send_websocket(PING, b"x")
        time.sleep(PAUSE)
    assert client.call("echo", b"alive") == b"alive"


def test_a_client_that_never_answers_a_close_is_dropped(node, connect):
    client = connect(node)
    client.answers_pings = False
    client.send(b"\xff")
    assert client.recv().code == 1002
    client.expect_end()
