"""Calls, their answers and their cancellation."""

import time

import pytest
from client import Notify, Request, Reset, Response, error_code, running, wait_for_running, wait_until

PROMPT = 0.050  # the contract's own limit for a Reset
ATTEMPTS = 3  # the machine may be busy with something else once or twice


@pytest.fixture(scope="module")
def roomy_node(start_node):
    """Lets a client leave many megabytes unread."""
    return start_node("--max-outbound", str(256 * 1024 * 1024), "--max-calls", "100000")


@pytest.fixture
def observer(node, connect):
    """A second connection that sees how many calls run, none at the start."""
    observer = connect(node)
    wait_for_running(observer, 0)
    return observer


def seconds_until_none_runs(observer):
    started = time.monotonic()
    wait_for_running(observer, 0)
    return time.monotonic() - started


def test_every_request_is_answered_by_exactly_one_response(node, connect):
    client = connect(node)
    client.send(*[Request(id, "echo", b"%d" % id) for id in range(500)])
    answers = [client.recv() for _ in range(500)]
    assert sorted(answers, key=lambda answer: answer.id) == [Response(id, b"%d" % id) for id in range(500)]
    client.expect_silence()


def test_responses_come_in_the_order_of_completion_not_of_requests(node, connect):
    client = connect(node)
    client.send(Request(1, "long_runing_task"), Request(2, "echo", b"quick"))
    assert client.recv() == Response(2, b"quick")
    assert client.recv() == Response(1, b"done!")


def test_calls_of_one_connection_run_concurrently(node, connect, observer):
    client = connect(node)
    client.send(*[Request(id, "long") for id in range(20)])
    wait_for_running(observer, 20)
    assert client.call("echo", b"beside them") == b"beside them"


def test_notifications_of_one_connection_are_handled_in_order(node, connect):
    client = connect(node)
    client.send(*[Notify("ping", b"%d" % i) for i in range(1000)])
    assert [client.recv() for _ in range(1000)] == [Notify("pong", b"%d" % i) for i in range(1000)]


def test_an_unknown_method_is_answered_not_found(node, connect):
    client = connect(node)
    client.send(Request(9, "no such method", b"x"))
    answer = client.recv()
    assert answer.id == 9
    assert error_code(answer.payload) == "NOT_FOUND"


def test_bad_input_is_answered_invalid_argument_and_the_connection_goes_on(node, connect):
    client = connect(node)
    assert error_code(client.call("uppercase", b"\xff\xfe")) == "INVALID_ARGUMENT"
    assert client.call("uppercase", b"fine") == b"FINE"


def test_a_reset_cancels_the_call(node, connect, observer):
    client = connect(node)
    client.send(Request(1, "long"))
    wait_for_running(observer, 1)
    client.send(Reset(1))
    wait_for_running(observer, 0)


def test_a_reset_is_obeyed_within_50_ms(node, connect, observer):
    client = connect(node)
    took = []
    for _ in range(ATTEMPTS):
        client.send(Request(1, "long"))
        wait_for_running(observer, 1)
        client.send(Reset(1))
        took.append(seconds_until_none_runs(observer))
    assert min(took) < PROMPT, took


def test_a_reset_cancels_no_other_call(node, connect, observer):
    client, other = connect(node), connect(node)
    client.send(Request(1, "long"), Request(2, "long"))
    other.send(Request(1, "long"))
    wait_for_running(observer, 3)
    client.send(Reset(1))
    wait_for_running(observer, 2)
    assert client.call("echo") == b""
    assert running(observer) == 2


def test_no_response_follows_a_reset(node, connect):
    client = connect(node)
    client.send(Request(1, "long_runing_task"), Request(2, "long_runing_task"), Reset(1))
    assert client.recv() == Response(2, b"done!")
    client.expect_silence()


def test_no_response_follows_a_reset_that_races_with_the_answer(node, connect):
    client = connect(node)
    pairs = [(Request(id, "echo"), Reset(id)) for id in range(300)]
    client.send(*[frame for pair in pairs for frame in pair])
    # Frames are read in their order: when this call is answered, every Reset before it was processed.
    assert client.call("echo", b"after all of them") == b"after all of them"
    answered = [frame.id for frame in client.inbox]
    assert len(answered) == len(set(answered))
    client.inbox.clear()
    client.expect_silence()


@pytest.mark.parametrize("id", [0, 777, 0xFFFFFFFF])
def test_a_reset_for_an_unknown_id_does_nothing(node, connect, id):
    client = connect(node)
    client.send(Reset(id))
    assert client.call("echo", b"x") == b"x"
    client.expect_silence(0.1)


def test_a_reset_for_a_finished_id_does_nothing(node, connect):
    client = connect(node)
    client.send(Request(5, "echo", b"first"))
    assert client.recv() == Response(5, b"first")
    client.send(Reset(5), Reset(5))
    assert client.call("echo", b"x") == b"x"
    client.expect_silence(0.1)


def test_an_id_can_be_used_again_after_its_call_was_answered(node, connect):
    client = connect(node)
    for i in range(100):
        client.send(Request(5, "echo", b"%d" % i))
        assert client.recv() == Response(5, b"%d" % i)


def test_an_id_can_be_used_again_right_after_its_reset(node, connect, observer):
    client = connect(node)
    client.send(Request(5, "long"), Reset(5), Request(5, "echo", b"second"))
    assert client.recv() == Response(5, b"second")
    wait_for_running(observer, 0)
    client.expect_silence(0.1)


def test_a_reset_after_an_id_was_used_again_cancels_the_new_call(node, connect, observer):
    client = connect(node)
    client.send(Request(5, "echo"))
    assert client.recv() == Response(5)
    client.send(Request(5, "long"))
    wait_for_running(observer, 1)
    client.send(Reset(5))
    wait_for_running(observer, 0)


def test_a_second_request_with_an_id_in_flight_closes_with_1002_and_cancels_both(node, connect, observer):
    client = connect(node)
    client.send(Request(5, "long"))
    wait_for_running(observer, 1)
    client.send(Request(5, "long"))
    client.expect_refusal(1002)
    wait_for_running(observer, 0)


def test_two_connections_can_use_the_same_id_at_once(node, connect, observer):
    one, two = connect(node), connect(node)
    one.send(Request(5, "long"))
    wait_for_running(observer, 1)
    two.send(Request(5, "echo", b"mine"))
    assert two.recv() == Response(5, b"mine")
    assert running(observer) == 1


@pytest.mark.parametrize(
    "frame_with_answer",
    [lambda id: Request(id, "echo", bytes(65536)), lambda id: Notify("ping", bytes(65536))],
    ids=["Responses", "Notifies"],
)
def test_a_reset_is_obeyed_within_50_ms_while_megabytes_wait_for_this_client(roomy_node, connect, frame_with_answer):
    observer = connect(roomy_node)
    took = []
    for _ in range(ATTEMPTS):
        wait_for_running(observer, 0)
        client = connect(roomy_node)
        client.send(Request(1, "long"))
        for id in range(100, 400):
            client.send(frame_with_answer(id))  # 19 MiB of answers in all, more than the kernel takes
        client.send(Request(2, "long"))
        # The last frame runs, so those before it were read too: the Reset has nothing before it in the queue.
        wait_for_running(observer, 2)
        client.send(Reset(1), Reset(2))
        took.append(seconds_until_none_runs(observer))
        client.close_socket()
    assert min(took) < PROMPT, took


def test_what_waited_while_a_reset_was_obeyed_still_arrives(roomy_node, connect):
    client, observer = connect(roomy_node), connect(roomy_node)
    wait_for_running(observer, 0)
    client.send(Request(1, "long"))
    for id in range(100, 300):
        client.send(Request(id, "echo", bytes(65536)))
    wait_for_running(observer, 1)
    client.send(Reset(1))
    wait_for_running(observer, 0)
    answers = [client.recv() for _ in range(200)]
    assert sorted(answer.id for answer in answers) == list(range(100, 300))
    client.expect_silence(0.1)


def test_a_finished_call_is_no_longer_counted_as_running(node, connect, observer):
    client = connect(node)
    client.send(Request(1, "long_runing_task"))
    wait_for_running(observer, 1)
    assert client.recv() == Response(1, b"done!")
    wait_until(lambda: running(observer) == 0, "the finished call is gone")
