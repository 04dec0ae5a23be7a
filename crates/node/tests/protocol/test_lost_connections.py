"""A connection that ends in whatever way takes its calls and its memberships with it."""

import socket

import pytest
from client import CLOSE, Request, close_payload, connection_id, members, wait_for_running, wait_until


def send_close(client):
    client.send_websocket(CLOSE, close_payload(1000))


def half_close(client):
    client.socket.shutdown(socket.SHUT_WR)


ENDS = {
    "a WebSocket close": send_close,
    "TCP FIN": lambda client: client.close_socket(),
    "half-closed TCP": half_close,
    "TCP RST": lambda client: client.reset_connection(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_end_of_a_connection_cancels_its_calls(node, connect, end):
    client, observer = connect(node), connect(node)
    wait_for_running(observer, 0)
    client.send(*[Request(id, "long") for id in range(10)])
    wait_for_running(observer, 10)
    end(client)
    wait_for_running(observer, 0)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_end_of_a_connection_ends_its_memberships(node, connect, end):
    client, observer = connect(node), connect(node)
    own_id = connection_id(client)
    assert client.call("rooms/join/leavers") == b""
    assert members(observer, "leavers") == [own_id]
    end(client)
    wait_until(lambda: members(observer, "leavers") == [], "the room is empty")
    wait_until(lambda: own_id not in members(observer, "main"), "it left main too")


def test_a_half_closed_connection_is_closed_by_the_server(node, connect):
    client = connect(node)
    half_close(client)
    client.expect_end()


def test_a_reset_connection_with_half_a_frame_received_cancels_its_calls(node, connect):
    client, observer = connect(node), connect(node)
    wait_for_running(observer, 0)
    client.send(Request(1, "long"))
    client.send_bytes(b"\x82\xfe\xff")
    wait_for_running(observer, 1)
    client.reset_connection()
    wait_for_running(observer, 0)
