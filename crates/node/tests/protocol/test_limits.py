"""The maximum payload, judged before anything is buffered, the maximum of calls in flight, and the rates."""

import json
import time

import pytest
from client import (
    BINARY,
    CONTINUATION,
    LONGEST_HEADER,
    MAX_PAYLOAD,
    PING,
    PONG,
    Notify,
    Request,
    Reset,
    Response,
    error_code,
    fragments,
    wait_for_running,
    websocket_frame,
)

SMALL = 1000


@pytest.fixture(scope="module")
def small_node(start_node):
    return start_node("--max-payload", str(SMALL))


@pytest.fixture(scope="module")
def node_of_three_calls(start_node):
    return start_node("--max-calls", "3")


def test_the_default_maximum_payload_is_1_mib_and_such_a_payload_goes_both_ways(node, connect):
    client = connect(node)
    payload = bytes(range(256)) * (MAX_PAYLOAD // 256)
    assert client.call("echo", payload) == payload
    client.send(Notify("ping", payload))
    assert client.recv() == Notify("pong", payload)


@pytest.mark.parametrize("frame", [Request(1, "echo"), Notify("ping"), Request(1, "n" * 255), Notify("")], ids=lambda f: f"{type(f).__name__} {len(f.name)}")
def test_one_byte_over_the_default_maximum_closes_with_1009(node, connect, frame):
    client = connect(node)
    client.try_send_bytes(websocket_frame(BINARY, frame.encode() + bytes(MAX_PAYLOAD + 1)))
    client.expect_refusal(1009)


def test_the_header_does_not_count_towards_the_maximum(small_node, connect):
    client = connect(small_node)
    client.send(Request(1, "n" * 255, bytes(SMALL)))
    answer = client.recv()
    assert error_code(answer.payload) == "NOT_FOUND"
    assert client.call("echo", b"x" * SMALL) == b"x" * SMALL


@pytest.mark.parametrize("frame", [Request(1, "echo"), Notify("ping")], ids=["Request", "Notify"])
def test_one_byte_over_a_configured_maximum_closes_with_1009(small_node, connect, frame):
    client = connect(small_node)
    client.send(frame.encode() + bytes(SMALL + 1))
    client.expect_refusal(1009)


@pytest.mark.parametrize("claim", [MAX_PAYLOAD + LONGEST_HEADER + 1, 2**32, 2**40, 2**63 - 1])
def test_an_oversized_claim_is_refused_at_the_frame_header(node, connect, claim):
    client = connect(node)
    client.send_websocket(BINARY, length=claim)  # not one byte of the payload follows
    client.expect_refusal(1009)


@pytest.mark.parametrize("claim", [SMALL + LONGEST_HEADER + 1, 65535, 65536])
def test_an_oversized_claim_against_a_configured_maximum_is_refused_at_the_frame_header(small_node, connect, claim):
    client = connect(small_node)
    client.send_websocket(BINARY, length=claim)
    client.expect_refusal(1009)


def test_the_maximum_holds_over_all_fragments_and_is_judged_at_the_header_of_the_one_that_passes_it(node, connect):
    client = connect(node)
    quarter = bytes(MAX_PAYLOAD // 4)
    client.send_websocket(BINARY, b"\x01\x04ping" + quarter, fin=False)
    for _ in range(3):
        client.send_websocket(CONTINUATION, quarter, fin=False)
    client.expect_silence(0.1)
    client.send_websocket(CONTINUATION, fin=False, length=LONGEST_HEADER)
    client.expect_refusal(1009)


def test_an_oversized_claim_of_a_last_fragment_is_refused_at_its_header(small_node, connect):
    client = connect(small_node)
    client.send_websocket(BINARY, b"\x01\x04ping", fin=False)
    client.send_websocket(CONTINUATION, length=2**40)
    client.expect_refusal(1009)


def test_the_maximum_payload_in_many_fragments_is_accepted(small_node, connect):
    client = connect(small_node)
    message = Request(1, "echo", b"x" * SMALL).encode()
    client.send_bytes(fragments(message, *range(1, len(message))))
    assert client.recv() == Response(1, b"x" * SMALL)


def test_one_byte_over_the_maximum_in_many_fragments_closes_with_1009(small_node, connect):
    client = connect(small_node)
    message = Request(1, "echo", b"x" * (SMALL + 1)).encode()
    client.send_bytes(fragments(message, *range(1, len(message))))
    client.expect_refusal(1009)


def test_a_call_over_the_maximum_in_flight_is_answered_resource_exhausted(node_of_three_calls, connect):
    client, observer = connect(node_of_three_calls), connect(node_of_three_calls)
    client.send(Request(1, "long"), Request(2, "long"), Request(3, "long"), Request(4, "long"))
    answer = client.recv()
    assert answer.id == 4
    assert error_code(answer.payload) == "RESOURCE_EXHAUSTED"
    wait_for_running(observer, 3)
    client.expect_silence(0.1)


def test_a_reset_makes_room_for_another_call(node_of_three_calls, connect):
    client, observer = connect(node_of_three_calls), connect(node_of_three_calls)
    wait_for_running(observer, 0)
    client.send(Request(1, "long"), Request(2, "long"), Request(3, "long"))
    wait_for_running(observer, 3)
    client.send(Reset(2), Request(4, "echo", b"room"))
    assert client.recv() == Response(4, b"room")


def test_the_maximum_in_flight_is_per_connection_and_does_not_touch_notifications(node_of_three_calls, connect):
    full, other = connect(node_of_three_calls), connect(node_of_three_calls)
    full.send(Request(1, "long"), Request(2, "long"), Request(3, "long"))
    wait_for_running(other, 3)
    assert other.call("echo", b"x") == b"x"
    full.send(Notify("ping", b"x"))
    assert full.recv() == Notify("pong", b"x")


@pytest.fixture(scope="module")
def node_of_low_rates(start_node):
    return start_node("--rates-calls", "20/s burst 3", "--rates-control-frames", "1/s burst 3")


def test_a_call_above_the_rate_fails_and_succeeds_after_the_time_in_its_error(node_of_low_rates, connect):
    client = connect(node_of_low_rates)
    client.send(*[Request(number, "echo", b"x") for number in range(100)])
    answers = [client.recv() for _ in range(100)]
    refused = [json.loads(answer.payload)["error"] for answer in answers if answer.payload != b"x"]
    assert 0 < len(refused) <= 97
    for error in refused:
        assert error["code"] == "RESOURCE_EXHAUSTED"
        assert error["details"]["limit"] == "calls"
        assert 0 < error["details"]["retry_after_ms"] <= 50
    time.sleep(refused[-1]["details"]["retry_after_ms"] / 1000)
    assert client.call("echo", b"x") == b"x"


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frames_above_the_rate_close_with_1008(node_of_low_rates, connect, opcode):
    client = connect(node_of_low_rates)
    client.try_send_bytes(websocket_frame(opcode, b"") * 100)
    assert client.expect_close(1008) is not None


def test_a_notification_above_the_rate_closes_with_1008(start_node, connect):
    client = connect(start_node("--rates-frames", "1/s burst 3"))
    client.try_send_bytes(websocket_frame(BINARY, Notify("ignored").encode()) * 100)
    client.expect_refusal(1008)
