"""The tutorial's methods under --demo."""

import time

from client import Notify, Request, Reset, Response, connection_id, members, running, wait_for_running, wait_until


def test_ping_is_answered_by_pong_with_the_same_payload(node, connect):
    client = connect(node)
    client.send(Notify("ping", b"\x00payload\xff"))
    assert client.recv() == Notify("pong", b"\x00payload\xff")


def test_every_connection_joins_the_room_main_by_itself(node, connect):
    client = connect(node)
    own_id = connection_id(client)
    wait_until(lambda: own_id in members(client, "main"), "a member of main")


def test_broadcast_reaches_everybody_in_main_as_message_with_the_same_payload(node, connect):
    clients = [connect(node) for _ in range(5)]
    own_ids = {connection_id(client) for client in clients}
    wait_until(lambda: own_ids <= set(members(clients[0], "main")), "all in main")
    clients[2].send(Notify("broadcast", b"\xffnot text"))
    for client in clients:
        assert client.recv() == Notify("message", b"\xffnot text")


def test_a_connection_that_left_main_gets_no_broadcast(node, connect):
    sender, leaver = connect(node), connect(node)
    own_ids = {connection_id(sender), connection_id(leaver)}
    wait_until(lambda: own_ids <= set(members(sender, "main")), "both in main")
    assert leaver.call("rooms/leave/main") == b""
    sender.send(Notify("broadcast", b"x"))
    assert sender.recv() == Notify("message", b"x")
    leaver.expect_silence(0.1)


def test_myip_is_the_address_and_port_of_the_client(node, connect):
    client = connect(node)
    ip, port = client.socket.getsockname()
    assert client.call("myip") == f"{ip}:{port}".encode()


def test_uppercase_is_the_text_in_upper_case(node, connect):
    client = connect(node)
    assert client.call("uppercase", b"hello, World 1") == b"HELLO, WORLD 1"
    assert client.call("uppercase", "straße, été, ñ".encode()) == "STRASSE, ÉTÉ, Ñ".encode()
    assert client.call("uppercase") == b""


def test_other_calls_do_not_wait_for_a_long_text_in_upper_case(node, connect):
    client = connect(node)
    client.send(Request(1, "uppercase", "ß".encode() * 500_000), Request(2, "echo", b"meanwhile"))
    assert client.recv() == Response(2, b"meanwhile")
    assert client.recv() == Response(1, b"SS" * 500_000)


def test_long_runing_task_is_done_after_3_seconds(node, connect):
    client = connect(node)
    started = time.monotonic()
    assert client.call("long_runing_task") == b"done!"
    assert time.monotonic() - started >= 2.95


def test_echo_is_the_payload(node, connect):
    client = connect(node)
    for payload in (b"", b"x", bytes(range(256)) * 16):
        assert client.call("echo", payload) == payload


def test_running_counts_the_unfinished_long_calls_of_the_node(node, connect):
    one, two, observer = connect(node), connect(node), connect(node)
    wait_for_running(observer, 0)
    one.send(Request(1, "long"), Request(2, "long_runing_task"))
    two.send(Request(1, "long"))
    wait_for_running(observer, 3)
    assert running(one) == running(two) == 3
    two.send(Reset(1))
    wait_for_running(observer, 2)
    one.send(Reset(2), Reset(1))
    wait_for_running(observer, 0)


def test_long_runing_task_and_long_can_be_cancelled(node, connect):
    client, observer = connect(node), connect(node)
    wait_for_running(observer, 0)
    client.send(Request(1, "long_runing_task"), Request(2, "long"))
    wait_for_running(observer, 2)
    client.send(Reset(1), Reset(2), Request(3, "echo"))
    wait_for_running(observer, 0)
    assert client.recv() == Response(3)
