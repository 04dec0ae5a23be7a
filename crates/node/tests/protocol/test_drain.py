"""SIGTERM drains a node: nobody is cut off without a word, and it ends."""

import json
import select
import signal
import socket
import time

import pytest
from client import DEADLINE, Closed, Request, Reset, Response, error_code, wait_for_running, wait_until

NEVER, AFTER_NEVER = "600s", "900s"  # stages that do not end within a test


@pytest.fixture
def start_draining_node(start_node):
    def start(delay="100ms", duration="100ms", timeout="20s"):
        return start_node("--drain-delay", delay, "--drain-duration", duration, "--drain-timeout", timeout)

    return start


def refuses_connections(node):
    try:
        socket.create_connection(("127.0.0.1", node.port), DEADLINE).close()
    except ConnectionRefusedError:
        return True
    return False


def test_readyz_is_503_with_reasons_at_once_while_connections_are_still_served(start_draining_node, connect):
    node = start_draining_node(delay=NEVER, timeout=AFTER_NEVER)
    before = connect(node)
    node.signal()
    wait_until(lambda: node.get("/readyz")[0] == 503, "not ready")
    assert json.loads(node.get("/readyz")[1]), "no reasons"
    assert node.get("/healthz")[0] == 200
    assert before.call("echo", b"x") == b"x"
    assert connect(node).call("echo", b"new") == b"new"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_every_client_is_closed_with_1001_and_the_exit_status_is_0(start_draining_node, connect, number):
    node = start_draining_node()
    clients = [connect(node) for _ in range(10)]
    node.signal(number)
    for client in clients:
        assert client.expect_close(1001) == []
    assert node.wait_for_exit() == 0


def test_a_node_without_clients_ends_with_exit_status_0(start_draining_node):
    node = start_draining_node()
    node.signal()
    assert node.wait_for_exit() == 0


def test_connections_are_refused_after_the_delay(start_draining_node, connect):
    node = start_draining_node(delay="300ms", timeout=NEVER)
    busy = connect(node)
    busy.send(Request(1, "long"))  # keeps the node up, so that the refusal is not just its end
    node.signal()
    wait_until(lambda: refuses_connections(node), "connections are refused")
    assert node.process.poll() is None
    assert node.get("/healthz")[0] == 200


def test_closes_are_spread_over_time(start_draining_node, connect):
    node = start_draining_node(duration="2s")
    clients = [connect(node) for _ in range(20)]
    node.signal()
    waiting, times = {client.socket: client for client in clients}, []
    while waiting:
        readable, _, _ = select.select(list(waiting), [], [], DEADLINE)
        assert readable, "no further close"
        times.append(time.monotonic())
        for one in readable:
            waiting.pop(one).expect_close(1001)
    assert times[-1] - times[0] > 0.5, "all closes came in one instant"
    assert node.wait_for_exit() == 0


def test_a_call_that_finishes_in_time_is_answered_before_the_close(start_draining_node, connect):
    node = start_draining_node()
    client = connect(node)
    client.send(Request(1, "long_runing_task"))
    wait_for_running(client, 1)
    node.signal()
    assert client.expect_close(1001) == [Response(1, b"done!")]
    assert node.wait_for_exit() == 0


def test_a_call_that_does_not_finish_in_time_is_cancelled(start_draining_node, connect):
    node = start_draining_node(timeout="1s")
    client = connect(node)
    client.send(Request(1, "long"))
    wait_for_running(client, 1)
    node.signal()
    for answer in client.expect_close(1001):  # an error answer is allowed, a result is not
        assert answer.id == 1
        assert error_code(answer.payload)
    assert node.wait_for_exit() == 0


def test_pending_output_is_flushed_before_the_close(start_draining_node, connect):
    node = start_draining_node()
    client, observer = connect(node), connect(node)
    client.send(*[Request(id, "echo", bytes(65536)) for id in range(30)], Request(99, "long"))
    wait_for_running(observer, 1)  # so the calls before it were read
    client.send(Reset(99))
    wait_for_running(observer, 0)
    observer.close_socket()
    node.signal()
    assert sorted(answer.id for answer in client.expect_close(1001)) == list(range(30))
    assert node.wait_for_exit() == 0


def test_a_client_that_never_answers_the_close_does_not_hold_the_node(start_draining_node, connect):
    node = start_draining_node(timeout="1s")
    client = connect(node)
    node.signal()
    frame = client.recv()
    assert isinstance(frame, Closed) and frame.code == 1001
    assert node.wait_for_exit() == 0


def test_a_second_signal_ends_the_node_at_once(start_draining_node, connect):
    node = start_draining_node(delay=NEVER, timeout=AFTER_NEVER)
    client = connect(node)
    client.send(Request(1, "long"))
    wait_for_running(client, 1)
    node.signal()
    wait_until(lambda: node.get("/readyz")[0] == 503, "draining")
    node.signal()
    node.wait_for_exit(DEADLINE)
