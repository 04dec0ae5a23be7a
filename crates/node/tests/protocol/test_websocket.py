"""RFC 6455 as the server keeps it: fragments, control frames, masks, reserved bits and the closing handshake."""

import struct

import pytest
from client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Notify,
    Request,
    Response,
    WebSocketFrame,
    close_payload,
    connection_id,
    fragments,
    members,
    wait_for_running,
    wait_until,
    websocket_frame,
)


# Fragments


def test_a_request_in_fragments_is_assembled(node, connect):
    client = connect(node)
    message = Request(1, "echo", b"in parts").encode()
    client.send_bytes(fragments(message, 1, 3, 7, 12))
    assert client.recv() == Response(1, b"in parts")


@pytest.mark.parametrize("cut", range(1, len(b"\x01\x04pingx")))
def test_a_notify_may_be_cut_at_every_byte(node, connect, cut):
    client = connect(node)
    client.send_bytes(fragments(b"\x01\x04pingx", cut))
    assert client.recv() == Notify("pong", b"x")


def test_a_last_fragment_shaped_like_a_frame_is_not_taken_for_one(node, connect):
    client = connect(node)
    smuggled = b"\x01\x04pingsmuggled"
    client.send_websocket(BINARY, b"\x01\x04ping", fin=False)
    client.send_websocket(CONTINUATION, smuggled)
    assert client.recv() == Notify("pong", smuggled)
    client.expect_silence(0.1)


def test_a_message_in_fragments_leaves_nothing_behind_for_the_next(node, connect):
    client = connect(node)
    for payload in (b"first", b"second", b""):
        client.send_bytes(fragments(b"\x01\x04ping" + payload, 2))
        assert client.recv() == Notify("pong", payload)
    client.send(Notify("ping", b"whole"))
    assert client.recv() == Notify("pong", b"whole")


def test_empty_fragments_add_nothing(node, connect):
    client = connect(node)
    client.send_websocket(BINARY, fin=False)
    client.send_websocket(CONTINUATION, b"\x01\x04pingx", fin=False)
    client.send_websocket(CONTINUATION, fin=False)
    client.send_websocket(CONTINUATION)
    assert client.recv() == Notify("pong", b"x")


def test_a_continuation_without_a_start_closes_with_1002(node, connect):
    client = connect(node)
    client.send_websocket(CONTINUATION, b"\x01\x04ping")
    client.expect_refusal(1002)


def test_a_continuation_after_a_complete_message_closes_with_1002(node, connect):
    client = connect(node)
    client.send(Notify("ping"))
    assert client.recv() == Notify("pong")
    client.send_websocket(CONTINUATION, b"more")
    client.expect_refusal(1002)


def test_a_new_message_within_a_fragmented_one_closes_with_1002(node, connect):
    client = connect(node)
    client.send_websocket(BINARY, b"\x01\x04ping", fin=False)
    client.send_websocket(BINARY, b"\x01\x04ping")
    client.expect_refusal(1002)


def test_a_text_message_in_fragments_closes_with_1003(node, connect):
    client = connect(node)
    client.send_bytes(websocket_frame(TEXT, b"hel", fin=False) + websocket_frame(CONTINUATION, b"lo"))
    client.expect_refusal(1003)


# Bytes and packets


def test_a_frame_may_arrive_byte_by_byte(node, connect):
    client = connect(node)
    message = Request(1, "echo", b"x" * 200).encode()  # long enough for the 16-bit length
    for byte in websocket_frame(BINARY, message):
        client.send_bytes(bytes([byte]))
    assert client.recv() == Response(1, b"x" * 200)


def test_many_frames_may_arrive_in_one_packet(node, connect):
    client = connect(node)
    client.send_bytes(websocket_frame(PING, b"p") + fragments(b"\x01\x04pinga", 3) + websocket_frame(BINARY, b"\x01\x04pingb"))
    seen = [client.recv_websocket() for _ in range(3)]
    assert WebSocketFrame(PONG, b"p") in seen
    assert [frame.payload for frame in seen if frame.opcode == BINARY] == [b"\x01\x04ponga", b"\x01\x04pongb"]


def test_a_half_received_frame_survives_what_the_server_sends_meanwhile(node, connect):
    slow_writer, other = connect(node), connect(node)
    own_id = connection_id(slow_writer)
    wait_until(lambda: own_id in members(other, "main"), "the connection is in the room main")
    frame = websocket_frame(BINARY, Request(1, "echo", b"x" * 300).encode())
    for part in (frame[:1], frame[1:3], frame[3:6], frame[6:20], frame[20:200]):
        slow_writer.send_bytes(part)
        other.send(Notify("broadcast", b"meanwhile"))
        assert slow_writer.recv() == Notify("message", b"meanwhile")
    slow_writer.send_bytes(frame[200:])
    assert slow_writer.recv() == Response(1, b"x" * 300)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x01\x02\x03"], ids=["zeros", "ones", "four bytes"])
def test_every_mask_is_taken_off(node, connect, mask):
    client = connect(node)
    client.send_websocket(BINARY, Request(1, "echo", bytes(range(256))).encode(), mask=mask)
    assert client.recv() == Response(1, bytes(range(256)))


# Ping and pong


@pytest.mark.parametrize("payload", [b"", b"are you there?", bytes(range(125))], ids=["0 bytes", "14 bytes", "125 bytes"])
def test_a_ping_is_answered_by_a_pong_with_the_same_payload(node, connect, payload):
    client = connect(node)
    client.send_websocket(PING, payload)
    assert client.recv_websocket() == WebSocketFrame(PONG, payload)


def test_a_ping_between_fragments_is_answered_before_the_message_ends(node, connect):
    client = connect(node)
    client.send_websocket(BINARY, b"\x01\x04pi", fin=False)
    client.send_websocket(PING, b"between")
    assert client.recv_websocket() == WebSocketFrame(PONG, b"between")
    client.send_websocket(CONTINUATION, b"ngx")
    assert client.recv() == Notify("pong", b"x")


def test_an_unasked_pong_is_ignored(node, connect):
    client = connect(node)
    client.send_websocket(PONG, b"nobody asked")
    client.send_websocket(PONG)
    assert client.call("echo", b"x") == b"x"
    client.expect_silence(0.1)


# What RFC 6455 forbids a client


@pytest.mark.parametrize("opcode", [BINARY, TEXT, PING, CLOSE])
def test_an_unmasked_frame_closes_with_1002(node, connect, opcode):
    client = connect(node)
    client.send_websocket(opcode, b"\x03\xe8ok", mask=None)
    client.expect_refusal(1002)


@pytest.mark.parametrize("rsv", [0b100, 0b010, 0b001], ids=["RSV1", "RSV2", "RSV3"])
@pytest.mark.parametrize("opcode", [BINARY, PING], ids=["binary", "ping"])
def test_a_reserved_bit_closes_with_1002(node, connect, opcode, rsv):
    client = connect(node)
    client.send_websocket(opcode, b"\x01\x04ping", rsv=rsv)
    client.expect_refusal(1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_a_reserved_opcode_closes_with_1002(node, connect, opcode):
    client = connect(node)
    client.send_websocket(opcode, b"x")
    client.expect_refusal(1002)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE], ids=["ping", "pong", "close"])
def test_a_control_frame_in_fragments_closes_with_1002(node, connect, opcode):
    client = connect(node)
    client.send_websocket(opcode, b"\x03\xe8", fin=False)
    client.expect_refusal(1002)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE], ids=["ping", "pong", "close"])
def test_a_control_frame_over_125_bytes_closes_with_1002(node, connect, opcode):
    client = connect(node)
    client.send_websocket(opcode, b"\x03\xe8" + b"x" * 124)
    client.expect_refusal(1002)


# The closing handshake


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4999])
def test_a_close_is_answered_with_its_code_and_the_server_closes_tcp(node, connect, code):
    client = connect(node)
    client.send_websocket(CLOSE, close_payload(code, "bye"))
    answer = client.recv_websocket()
    assert answer.opcode == CLOSE
    assert struct.unpack(">H", answer.payload[:2]) == (code,)
    with pytest.raises(EOFError):
        client.recv_websocket()


def test_a_close_without_a_code_is_answered_and_the_server_closes_tcp(node, connect):
    client = connect(node)
    client.send_websocket(CLOSE)
    answer = client.recv_websocket()
    assert answer.opcode == CLOSE
    assert answer.payload[:2] in (b"", close_payload(1000))
    with pytest.raises(EOFError):
        client.recv_websocket()


def test_nothing_after_a_close_is_handled(node, connect):
    client = connect(node)
    client.send_bytes(websocket_frame(CLOSE, close_payload(1000)) + websocket_frame(BINARY, b"\x01\x04ping"))
    assert client.recv_websocket().opcode == CLOSE
    client.expect_end()


def test_a_close_within_a_fragmented_message_is_answered(node, connect):
    client = connect(node)
    client.send_websocket(BINARY, b"\x01\x04pi", fin=False)
    client.send_websocket(CLOSE, close_payload(1000))
    assert client.recv_websocket() == WebSocketFrame(CLOSE, close_payload(1000))
    client.expect_end()


def test_a_close_cancels_the_calls_of_the_connection(node, connect):
    client, observer = connect(node), connect(node)
    client.send(Request(1, "long"), Request(2, "long"))
    wait_for_running(observer, 2)
    client.send_websocket(CLOSE, close_payload(1000))
    wait_for_running(observer, 0)


@pytest.mark.parametrize(
    "payload",
    [b"\x03", close_payload(0), close_payload(999), close_payload(1004), close_payload(1005), close_payload(1006), close_payload(1015), close_payload(5000)],
    ids=["half a code", "0", "999", "1004", "1005", "1006", "1015", "5000"],
)
def test_a_close_with_an_impossible_code_is_answered_with_1002(node, connect, payload):
    client = connect(node)
    client.send_websocket(CLOSE, payload)
    assert client.expect_close(1002) == []


def test_a_close_whose_reason_is_not_utf8_is_answered_with_1007(node, connect):
    client = connect(node)
    client.send_websocket(CLOSE, close_payload(1000) + b"\xff\xfe")
    assert client.expect_close(1007) == []
