"""A client that does not read is closed alone, and nobody waits for it."""

import pytest
from client import Notify, Request, Response, connection_id, members, running, wait_for_running

EVENT_SIZE = 64 * 1024
ENOUGH_EVENTS = 1000  # 64 MiB, far more than the kernel's buffers and the limit take together


@pytest.fixture(scope="module")
def node(start_node):
    return start_node("--max-outbound", str(256 * 1024))


def event(number):
    return number.to_bytes(4, "big") + bytes(EVENT_SIZE)


def test_a_member_that_does_not_read_is_closed_with_4408_and_the_others_get_everything_in_order(node, connect):
    publisher, healthy, slow = connect(node), connect(node), connect(node)
    assert healthy.call("rooms/join/news") == slow.call("rooms/join/news") == b""

    published = 0
    while len(members(publisher, "news")) == 2:
        assert published < ENOUGH_EVENTS, "the slow member is still in the room"
        assert publisher.call("rooms/publish/news/item", event(published)) == b""
        assert healthy.recv() == Notify("item", event(published))
        published += 1

    for number in range(published, published + 20):
        assert publisher.call("rooms/publish/news/item", event(number)) == b""
        assert healthy.recv() == Notify("item", event(number))

    received = slow.expect_close(4408)
    assert received == [Notify("item", event(number)) for number in range(len(received))], "a gap before the close"


def test_a_slow_consumer_has_its_calls_cancelled(node, connect):
    publisher, slow = connect(node), connect(node)
    slow.call("rooms/join/flood")
    slow.send(Request(1, "long"))
    wait_for_running(publisher, 1)
    for number in range(ENOUGH_EVENTS):
        if running(publisher) == 0:
            break
        assert publisher.call("rooms/publish/flood/item", event(number)) == b""
    assert running(publisher) == 0
    slow.expect_close(4408)


def test_a_client_that_leaves_its_own_answers_unread_is_closed_with_4408(node, connect):
    slow, observer = connect(node), connect(node)
    slow_id = connection_id(slow)
    for id in range(ENOUGH_EVENTS):
        slow.send(Request(id, "echo", bytes(EVENT_SIZE)))
        if slow_id not in members(observer, "main"):
            break
    assert slow_id not in members(observer, "main")
    received = slow.expect_close(4408)
    assert received == [Response(frame.id, bytes(EVENT_SIZE)) for frame in received]


def test_a_client_that_reads_late_but_stays_below_the_limit_gets_everything(node, connect):
    publisher, late = connect(node), connect(node)
    late.call("rooms/join/small")
    for number in range(3):
        assert publisher.call("rooms/publish/small/item", event(number)) == b""
    assert [late.recv() for _ in range(3)] == [Notify("item", event(number)) for number in range(3)]
    assert late.call("echo", b"alive") == b"alive"
