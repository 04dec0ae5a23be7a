"""The layout of each frame, names and payloads."""

import pytest
from client import BINARY, Notify, Request, Response, error_code, wait_for_running

EVERY_BYTE = bytes(range(256))


def test_a_notify_is_opcode_1_name_length_name_and_payload_both_ways(node, connect):
    client = connect(node)
    client.send(b"\x01" + b"\x04" + b"ping" + b"hello")
    assert client.recv_message() == b"\x01" + b"\x04" + b"pong" + b"hello"


def test_a_request_is_opcode_2_id_name_length_name_and_payload_and_a_response_is_opcode_4_id_and_payload(node, connect):
    client = connect(node)
    client.send(b"\x02" + b"\x00\x00\x00\x2a" + b"\x04" + b"echo" + b"hello")
    assert client.recv_message() == b"\x04" + b"\x00\x00\x00\x2a" + b"hello"


def test_a_reset_is_opcode_3_and_id(node, connect):
    client, observer = connect(node), connect(node)
    client.send(b"\x02" + b"\x00\x00\x00\x2a" + b"\x04" + b"long")
    wait_for_running(observer, 1)
    client.send(b"\x03" + b"\x00\x00\x00\x2a")
    wait_for_running(observer, 0)


def test_ids_are_big_endian(node, connect):
    client = connect(node)
    client.send(b"\x02" + b"\x01\x02\x03\x04" + b"\x04" + b"echo")
    assert client.recv() == Response(0x01020304)


@pytest.mark.parametrize("id", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_every_u32_is_an_id(node, connect, id):
    client = connect(node)
    client.send(Request(id, "echo", b"x"))
    assert client.recv() == Response(id, b"x")


def test_every_frame_from_the_server_is_one_binary_message(node, connect):
    client = connect(node)
    client.send(*[Notify("ping", bytes([i])) for i in range(50)])
    for i in range(50):
        frame = client.recv_websocket()
        assert (frame.opcode, frame.fin, frame.payload) == (BINARY, True, b"\x01\x04pong" + bytes([i]))


@pytest.mark.parametrize("name", ["", "n" * 255, "é" * 127, "\N{SNOWMAN}", "\0"], ids=["0 bytes", "255 bytes", "254 bytes of é", "☃", "NUL"])
def test_a_name_is_0_to_255_bytes_of_utf8(node, connect, name):
    client = connect(node)
    client.send(Notify(name), Request(7, name))
    answer = client.recv()
    assert answer.id == 7
    assert error_code(answer.payload) == "NOT_FOUND"


def test_a_name_length_counts_bytes_not_characters(node, connect):
    client = connect(node)
    assert client.call("rooms/join/salon") == b""
    client.send(Notify("rooms/publish/salon/événement", b"!"))
    assert client.recv_message() == b"\x01" + b"\x0b" + "événement".encode() + b"!"


def test_an_empty_payload_goes_both_ways(node, connect):
    client = connect(node)
    client.send(Notify("ping"))
    assert client.recv_message() == b"\x01\x04pong"
    client.send(Request(3, "echo"))
    assert client.recv_message() == b"\x04\x00\x00\x00\x03"


def test_a_payload_is_opaque_bytes(node, connect):
    client = connect(node)
    assert client.call("echo", EVERY_BYTE) == EVERY_BYTE
    client.send(Notify("ping", EVERY_BYTE))
    assert client.recv() == Notify("pong", EVERY_BYTE)


@pytest.mark.parametrize("size", [125, 126, 127, 65535, 65536])
def test_a_message_of_every_websocket_length_form_goes_both_ways(node, connect, size):
    client = connect(node)
    header_of_request, header_of_response = len(Request(1, "echo").encode()), len(Response(1).encode())
    for header in (header_of_request, header_of_response):
        payload = b"x" * (size - header)
        assert client.call("echo", payload) == payload


@pytest.mark.parametrize("name", ["uppercase", "echo", "no such method", "running", "rooms/members/main"])
def test_a_notify_is_never_answered(node, connect, name):
    client = connect(node)
    client.send(Notify(name, b"x"))
    assert client.call("echo", b"after it") == b"after it"
    client.expect_silence()


def test_a_failed_notification_is_dropped_and_the_connection_goes_on(node, connect):
    client = connect(node)
    client.send(Notify("no such method"), Notify("rooms/join/not allowed"), Notify("rooms/publish//"))
    client.send(Notify("ping", b"still here"))
    assert client.recv() == Notify("pong", b"still here")
