"""The HTTP upgrade at /socket: what is accepted and how each refusal is worded."""

import http.client

import pytest
from client import DEADLINE, SUBPROTOCOL, accept_key, handshake_headers


@pytest.fixture
def request_socket(node):
    """Sends a request for /socket and returns status, headers and body as text."""
    connections = []

    def request(headers, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=DEADLINE)
        connections.append(connection)
        connection.putrequest(method, "/socket", skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                connection.putheader(name, one)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    yield request
    for connection in connections:
        connection.close()


def test_a_good_upgrade_is_answered_101_with_the_subprotocol_and_the_accept_key(request_socket):
    headers = handshake_headers()
    status, answers, _ = request_socket(headers)
    assert status == 101
    assert answers["Upgrade"].lower() == "websocket"
    assert answers["Connection"].lower() == "upgrade"
    assert answers["Sec-WebSocket-Accept"] == accept_key(headers["Sec-WebSocket-Key"])
    assert answers.get_all("Sec-WebSocket-Protocol") == [SUBPROTOCOL]


@pytest.mark.parametrize(
    "offered",
    [
        f"roomcast.v999, {SUBPROTOCOL}",
        f"{SUBPROTOCOL}, roomcast.v999",
        f"a,b,{SUBPROTOCOL},c",
        f"a ,  {SUBPROTOCOL}  , c",
        ["roomcast.v999", SUBPROTOCOL],
    ],
    ids=["last", "first", "without spaces", "with more spaces", "in two header lines"],
)
def test_the_subprotocol_is_chosen_from_a_list(request_socket, offered):
    status, answers, _ = request_socket(handshake_headers(Sec_WebSocket_Protocol=offered))
    assert status == 101
    assert answers.get_all("Sec-WebSocket-Protocol") == [SUBPROTOCOL]


@pytest.mark.parametrize(
    "offered", [None, "graphql-ws", "websocket.io-rpc-v0.2", f"{SUBPROTOCOL}.1", f"x{SUBPROTOCOL}"], ids=["none", "foreign", "later", "longer", "prefixed"]
)
def test_an_upgrade_without_a_known_subprotocol_is_answered_400_with_a_text_that_names_the_known_one(request_socket, offered):
    status, answers, body = request_socket(handshake_headers(Sec_WebSocket_Protocol=offered))
    assert status == 400
    assert answers.get_content_type() == "text/plain"
    assert SUBPROTOCOL in body


def test_a_plain_get_is_answered_426_and_told_to_upgrade(request_socket):
    status, answers, body = request_socket({"Host": "roomcast.test"})
    assert status == 426
    assert "websocket" in answers["Upgrade"].lower()
    assert body


@pytest.mark.parametrize("version", ["8", "12", "14", "99", "thirteen", None])
def test_a_wrong_websocket_version_is_refused_with_a_text(request_socket, version):
    status, answers, body = request_socket(handshake_headers(Sec_WebSocket_Version=version))
    assert status in (400, 426)
    assert "13" in body or answers.get("Sec-WebSocket-Version") == "13"
    assert body


def test_a_missing_key_is_answered_400_with_a_text(request_socket):
    status, _, body = request_socket(handshake_headers(Sec_WebSocket_Key=None))
    assert status == 400
    assert body


def test_a_post_is_answered_405(request_socket):
    status, _, _ = request_socket(handshake_headers(Content_Length="0"), method="POST")
    assert status == 405


@pytest.mark.parametrize(
    "changes",
    [{"Upgrade": "WebSocket"}, {"Connection": "upgrade"}, {"Connection": "keep-alive, Upgrade"}],
    ids=["Upgrade: WebSocket", "Connection: upgrade", "Connection: keep-alive, Upgrade"],
)
def test_upgrade_headers_are_compared_without_case_and_as_lists(request_socket, changes):
    status, _, _ = request_socket(handshake_headers(**changes))
    assert status == 101
