"""Rooms on the wire: join, leave, publish, members, and one order of events for everybody."""

import json

import pytest
from client import Notify, connection_id, error_code, members, wait_until

LONGEST = "r" * 200
BAD_NAMES = {
    "empty": "",
    "over 200 bytes": "r" * 201,
    "over 200 bytes, not over 200 characters": "é" * 101,
    "a slash": "a/b",
    "a slash at the end": "a/",
    "a slash at the start": "/a",
    "a space": "a b",
    "a space at the end": "a ",
    "a tab": "a\tb",
    "a line feed": "a\nb",
    "a no-break space": "a\u00a0b",
    "an em space": "a\u2003b",
    "NUL": "a\0b",
    "ESC": "a\x1bb",
    "DEL": "a\x7fb",
    "a C1 control": "a\u0085b",
}
bad_names = pytest.mark.parametrize("bad", BAD_NAMES.values(), ids=BAD_NAMES.keys())


def join(room, *clients):
    for client in clients:
        assert client.call(f"rooms/join/{room}") == b""


def publish(client, room, event, payload=b""):
    assert client.call(f"rooms/publish/{room}/{event}", payload) == b""


def received_until_now(client):
    """What arrived before the answer to a call that is sent now."""
    client.call("echo")
    received = list(client.inbox)
    client.inbox.clear()
    return received


def test_after_the_response_to_a_join_every_broadcast_reaches_the_member(node, connect):
    publisher, member = connect(node), connect(node)
    for i in range(50):
        join(f"join-{i}", member)
        publish(publisher, f"join-{i}", "news", b"%d" % i)
        assert member.recv() == Notify("news", b"%d" % i)


def test_a_publish_reaches_every_member_once(node, connect):
    publisher, *clients = [connect(node) for _ in range(6)]
    join("everybody", *clients)
    publish(publisher, "everybody", "news", b"\x00\xff")
    for client in clients:
        assert client.recv() == Notify("news", b"\x00\xff")
        client.expect_silence(0.05)


def test_a_publisher_that_is_a_member_gets_its_own_event(node, connect):
    publisher = connect(node)
    join("own", publisher)
    publish(publisher, "own", "news", b"mine")
    assert publisher.recv() == Notify("news", b"mine")


def test_a_publisher_that_is_no_member_gets_nothing(node, connect):
    publisher, member = connect(node), connect(node)
    join("not-mine", member)
    publish(publisher, "not-mine", "news")
    assert member.recv() == Notify("news")
    publisher.expect_silence(0.1)


def test_an_event_reaches_no_other_room(node, connect):
    publisher, member = connect(node), connect(node)
    join("here", member)
    publish(publisher, "here2", "news")
    publish(publisher, "her", "news")
    publish(publisher, "HERE", "news")
    publish(publisher, "here", "right", b"")
    assert member.recv() == Notify("right")


def test_a_publish_to_a_room_without_members_is_answered(node, connect):
    publish(connect(node), "nobody", "news")


def test_joining_twice_is_joining_once(node, connect):
    member = connect(node)
    join("twice", member, member)
    assert len(members(member, "twice")) == 1
    publish(member, "twice", "news")
    assert member.recv() == Notify("news")
    member.expect_silence(0.1)
    assert member.call("rooms/leave/twice") == b""
    assert members(member, "twice") == []


def test_a_connection_is_in_several_rooms_at_once(node, connect):
    publisher, member = connect(node), connect(node)
    join("one", member)
    join("two", member)
    publish(publisher, "two", "news", b"2")
    publish(publisher, "one", "news", b"1")
    assert [member.recv(), member.recv()] == [Notify("news", b"2"), Notify("news", b"1")]


def test_after_the_response_to_a_leave_no_event_arrives(start_node, connect):
    node = start_node("--rates-publishes", "off")
    publisher, member = connect(node), connect(node)
    for i in range(20):
        join("leavers", member)
        publisher.send(*[Notify("rooms/publish/leavers/news") for _ in range(50)])
        assert member.call("rooms/leave/leavers") == b""
        member.inbox.clear()  # what came before the Response
        publisher.call("echo")
        publish(publisher, "leavers", "news", b"the last")
        assert received_until_now(member) == [], f"round {i}"
    member.expect_silence()


def test_leaving_a_room_without_being_a_member_is_answered_and_changes_nothing(node, connect):
    member, stranger = connect(node), connect(node)
    join("closed", member)
    assert stranger.call("rooms/leave/closed") == b""
    assert len(members(stranger, "closed")) == 1


def test_members_is_json_with_a_count_and_each_connection_and_its_user(node, connect):
    clients = [connect(node) for _ in range(3)]
    join("counted", *clients)
    answer = json.loads(clients[0].call("rooms/members/counted"))
    assert set(answer) == {"count", "members", "unresponsive_nodes"}
    assert answer["count"] == 3
    own_ids = [connection_id(client) for client in clients]
    assert sorted(member["connection"] for member in answer["members"]) == sorted(own_ids)
    assert all(member == {"connection": member["connection"], "user": None} for member in answer["members"])
    assert len(set(own_ids)) == 3


def test_a_room_without_members_has_count_0(node, connect):
    assert json.loads(connect(node).call("rooms/members/empty")) == {"count": 0, "members": [], "unresponsive_nodes": []}


def test_join_publish_and_leave_work_as_notifications_and_are_not_answered(node, connect):
    client, observer = connect(node), connect(node)
    client.send(Notify("rooms/join/quiet"))
    wait_until(lambda: len(members(observer, "quiet")) == 1, "joined by a notification")
    client.send(Notify("rooms/publish/quiet/news", b"x"))
    assert client.recv() == Notify("news", b"x")
    client.send(Notify("rooms/leave/quiet"))
    wait_until(lambda: members(observer, "quiet") == [], "left by a notification")
    client.expect_silence(0.1)


def test_notifications_to_rooms_are_handled_in_the_order_in_which_they_were_sent(node, connect):
    client = connect(node)
    client.send(Notify("rooms/join/in-order"), *[Notify("rooms/publish/in-order/news", b"%d" % i) for i in range(100)])
    assert [client.recv() for _ in range(100)] == [Notify("news", b"%d" % i) for i in range(100)]


@bad_names
def test_a_bad_room_name_is_answered_invalid_argument(node, connect, bad):
    client = connect(node)
    for method in ("join", "leave", "members"):
        assert error_code(client.call(f"rooms/{method}/{bad}")) == "INVALID_ARGUMENT", method
    assert error_code(client.call(f"rooms/publish/{bad}/news")) == "INVALID_ARGUMENT"


@bad_names
def test_a_bad_event_name_is_answered_invalid_argument(node, connect, bad):
    client = connect(node)
    assert error_code(client.call(f"rooms/publish/events/{bad}")) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("room", ["r", LONGEST, "é" * 100, "a.b:c-d_e", "\N{SNOWMAN}", "..", "%2F", "*"])
def test_a_room_name_is_1_to_200_bytes_of_utf8(node, connect, room):
    client = connect(node)
    join(room, client)
    publish(client, room, "news", b"x")
    assert client.recv() == Notify("news", b"x")
    assert members(client, room) == [connection_id(client)]


@pytest.mark.parametrize("event", ["e", LONGEST, "é" * 100, "a.b:c-d_e", "\N{SNOWMAN}", "ping"])
def test_an_event_name_is_1_to_200_bytes_of_utf8(node, connect, event):
    client = connect(node)
    join("r", client)
    publish(client, "r", event, b"x")
    assert client.recv() == Notify(event, b"x")


def test_all_members_get_the_events_of_concurrent_publishers_in_one_order(node, connect):
    publishers = [connect(node) for _ in range(4)]
    listeners = [connect(node) for _ in range(4)]
    join("contested", *listeners, publishers[0])  # the first is a member as well
    rounds, per_round = 20, 10
    for i in range(rounds):
        for who, publisher in enumerate(publishers):
            numbers = range(i * per_round, (i + 1) * per_round)
            publisher.send(*[Notify("rooms/publish/contested/item", bytes([who]) + b"%d" % n) for n in numbers])
    count = len(publishers) * rounds * per_round
    first, *others = [[client.recv() for _ in range(count)] for client in (*listeners, publishers[0])]
    for other in others:
        assert other == first
    for who in range(len(publishers)):
        numbers = [int(event.payload[1:]) for event in first if event.payload[0] == who]
        assert numbers == list(range(rounds * per_round)), "a publisher's own events changed their order"
