"""Nothing that one peer sends, claims or leaves behind touches another or wears out the node."""

import random
import time

from client import BINARY, CONTINUATION, MAX_PAYLOAD, Notify, Request, wait_until, websocket_frame

MIB = 1024 * 1024
ROOM_TO_BREATHE = 48 * MIB  # 200 claims of 1 MiB would take 200 MiB if a claim were believed


def test_garbage_from_many_connections_does_not_disturb_another(node, connect):
    healthy = connect(node)
    garbage = random.Random(20)
    for i in range(100):
        noisy = connect(node)
        noisy.try_send_bytes(garbage.randbytes(garbage.randrange(1, 4096)))
        assert healthy.call("echo", b"%d" % i) == b"%d" % i
        if i % 2:
            noisy.reset_connection()


def test_garbage_in_well_formed_messages_does_not_disturb_another(node, connect):
    healthy = connect(node)
    garbage = random.Random(21)
    for i in range(100):
        noisy = connect(node)
        frame = bytes([garbage.randrange(0, 6)]) + garbage.randbytes(garbage.randrange(0, 300))
        noisy.try_send_bytes(websocket_frame(BINARY, frame))
        assert healthy.call("echo", b"%d" % i) == b"%d" % i


def test_a_broadcast_that_is_not_text_harms_nobody(node, connect):
    sender, other = connect(node), connect(node)
    sender.send(Notify("broadcast", b"\xff\xfe\x00"))
    assert sender.call("uppercase", b"ok") == b"OK"
    assert other.call("uppercase", b"ok") == b"OK"


def test_200_claims_of_the_maximum_do_not_take_its_memory(node, connect):
    clients = [connect(node) for _ in range(200)]
    for client in clients:
        client.call("echo")
    before = node.resident_bytes()
    for client in clients:
        client.send_websocket(BINARY, Request(1, "echo").encode(), length=MAX_PAYLOAD)
    observer = connect(node)
    ends = time.monotonic() + 1
    while time.monotonic() < ends:
        assert observer.call("echo", b"x") == b"x"
        assert node.resident_bytes() - before < ROOM_TO_BREATHE
        time.sleep(0.05)


def test_200_claims_of_an_exbibyte_are_refused_and_take_no_memory(node, connect):
    clients = [connect(node) for _ in range(200)]
    for client in clients:
        client.call("echo")
    before = node.resident_bytes()
    for client in clients:
        client.send_websocket(BINARY, length=2**60)
    for client in clients:
        client.expect_refusal(1009)
    assert node.resident_bytes() - before < ROOM_TO_BREATHE


def test_an_unfinished_message_cannot_grow_without_end(node, connect):
    client = connect(node)
    before = node.resident_bytes()
    client.send_websocket(BINARY, b"\x01\x04ping", fin=False)
    fragment = websocket_frame(CONTINUATION, bytes(MIB // 2), fin=False)
    for _ in range(128):  # whether or not the server hangs up in between
        client.try_send_bytes(fragment)
    assert client.expect_close(1009) == []
    assert node.resident_bytes() - before < ROOM_TO_BREATHE


def test_empty_fragments_without_end_are_refused_and_take_no_memory(node, connect):
    client = connect(node)
    before = node.resident_bytes()
    client.send_websocket(BINARY, b"\x01\x04ping", fin=False)
    empty = b"\x00\x80\x00\x00\x00\x00"
    for _ in range(20):  # whether or not the server hangs up in between
        client.try_send_bytes(empty * 10_000)
    assert client.expect_close(1009) == []
    assert node.resident_bytes() - before < ROOM_TO_BREATHE


def test_ended_connections_leave_no_open_files(start_node, connect):
    node = start_node()
    observer = connect(node)
    observer.call("echo")
    before = node.open_files()
    for i in range(60):
        client = connect(node)
        client.send(Request(1, "long"))
        client.call("echo")
        if i % 3 == 0:
            client.reset_connection()
        elif i % 3 == 1:
            client.send(b"\xff")
            client.expect_refusal(1002)
        client.close_socket()
    # One or two more may have been opened by the node for itself.
    wait_until(lambda: node.open_files() <= before + 2, "the files of ended connections are closed")


def test_a_node_without_work_does_no_work_after_a_disconnect(start_node, connect):
    node = start_node()
    for _ in range(20):
        client = connect(node)
        client.call("echo")
        client.close_socket()
    time.sleep(0.2)  # the last ones are being cleaned up
    before = node.cpu_seconds()
    time.sleep(1)
    assert node.cpu_seconds() - before < 0.3, "it spins"
