"""Frames that break the protocol close the connection, each with the code for its kind of fault."""

import pytest
from client import BINARY, CONTINUATION, TEXT, Request, wait_for_running

MALFORMED = {
    "an empty message": b"",
    "a Notify without a name length": b"\x01",
    "a Notify that ends before its name": b"\x01\x04",
    "a Notify that ends within its name": b"\x01\x05ping",
    "a Request without an id": b"\x02",
    "a Request that ends within its id": b"\x02\x00\x00\x00",
    "a Request without a name length": b"\x02\x00\x00\x00\x01",
    "a Request that ends before its name": b"\x02\x00\x00\x00\x01\x04",
    "a Request that ends within its name": b"\x02\x00\x00\x00\x01\x05echo",
    "a Reset without an id": b"\x03",
    "a Reset that ends within its id": b"\x03\x00\x00\x00",
    "a Response, which only servers send": b"\x04\x00\x00\x00\x01done",
    "a Response without an id": b"\x04",
    "opcode 0": b"\x00\x04ping",
    "opcode 5": b"\x05\x04ping",
    "opcode 9": b"\x09\x00\x00\x00\x01",
    "opcode 255": b"\xff",
}

NOT_UTF8 = {"a stray continuation byte": b"\x80", "a cut sequence": b"ab\xc3", "a surrogate": b"\xed\xa0\x80", "an overlong form": b"\xc0\xaf"}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_frame_closes_with_1002_and_a_reason(node, connect, message):
    client = connect(node)
    client.send(message)
    client.expect_refusal(1002)


def test_an_empty_message_in_two_fragments_closes_with_1002(node, connect):
    client = connect(node)
    client.send_websocket(BINARY, fin=False)
    client.send_websocket(CONTINUATION)
    client.expect_refusal(1002)


@pytest.mark.parametrize("text", [b"hello", b"\x01\x04ping", b""], ids=["words", "shaped like a Notify", "empty"])
def test_a_text_message_closes_with_1003_and_a_reason(node, connect, text):
    client = connect(node)
    client.send_websocket(TEXT, text)
    client.expect_refusal(1003)


@pytest.mark.parametrize("name", NOT_UTF8.values(), ids=NOT_UTF8.keys())
@pytest.mark.parametrize("head", [b"\x01", b"\x02\x00\x00\x00\x01"], ids=["Notify", "Request"])
def test_a_name_that_is_not_utf8_closes_with_1007_and_a_reason(node, connect, head, name):
    client = connect(node)
    client.send(head + bytes([len(name)]) + name + b"payload")
    client.expect_refusal(1007)


def test_a_connection_closed_for_a_malformed_frame_has_its_calls_cancelled(node, connect):
    client, observer = connect(node), connect(node)
    client.send(Request(1, "long"), Request(2, "long"))
    wait_for_running(observer, 2)
    client.send(b"\xff")
    client.expect_refusal(1002)
    wait_for_running(observer, 0)


def test_frames_after_a_malformed_one_are_not_handled(node, connect):
    client = connect(node)
    client.send(b"\xff", Request(1, "echo", b"too late"))
    client.expect_refusal(1002)
