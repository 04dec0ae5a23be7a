"""The published protocol vectors, held against this suite's own encoder and decoder and against a node."""

import json
from pathlib import Path

import pytest
from client import BINARY, TEXT, Malformed, Notify, Request, Reset, Response, decode

FILE = Path(__file__).parents[4] / "docs" / "reference" / "protocol-vectors.json"


@pytest.fixture(scope="module")
def vectors():
    return json.loads(FILE.read_text())


def frame_of(description):
    payload = bytes.fromhex(description.get("payload_hex", ""))
    name, id = description.get("name"), description.get("id")
    return {
        "notify": lambda: Notify(name, payload),
        "request": lambda: Request(id, name, payload),
        "reset": lambda: Reset(id),
        "response": lambda: Response(id, payload),
    }[description["kind"]]()


def close_code(message):
    """The code with which a server must close when a client sends this, or `None`."""
    try:
        frame = decode(message)
    except Malformed as malformed:
        return malformed.close_code
    return 1002 if isinstance(frame, Response) else None


def test_every_frame_is_encoded_and_decoded_as_the_vectors_say(vectors):
    assert vectors["frames"]
    for vector in vectors["frames"]:
        frame, message = frame_of(vector["frame"]), bytes.fromhex(vector["hex"])
        assert frame.encode() == message, vector["name"]
        assert decode(message) == frame, vector["name"]


def test_every_invalid_frame_is_refused_as_the_vectors_say(vectors):
    assert vectors["invalid"]
    for vector in vectors["invalid"]:
        if vector["close"] != 1003:  # that one depends on the kind of message, not on its bytes
            assert close_code(bytes.fromhex(vector["hex"])) == vector["close"], vector["name"]


def test_a_node_refuses_every_invalid_frame_as_the_vectors_say(vectors, node, connect):
    for vector in vectors["invalid"]:
        client = connect(node)
        client.send_websocket(TEXT if vector["close"] == 1003 else BINARY, bytes.fromhex(vector["hex"]))
        client.expect_refusal(vector["close"])
