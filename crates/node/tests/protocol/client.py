"""A Roomcast client over a plain socket, so that a test controls every bit it sends.

Three layers, from the outside in: Roomcast frames (`Notify` … `decode`), WebSocket frames (`websocket_frame`)
and `Client`, one connection. `Client` answers pings and nothing else by itself.
"""

import base64
import hashlib
import json
import os
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass

SUBPROTOCOL = "websocket.io-rpc-v0.1"
MAX_PAYLOAD = 1024 * 1024
LONGEST_HEADER = 1 + 4 + 1 + 255  # opcode, id, name length, name: no frame has more bytes before its payload
DEADLINE = 10.0

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


# --- Roomcast frames ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Notify:
    name: str
    payload: bytes = b""

    def encode(self):
        return b"\x01" + encode_name(self.name) + self.payload


@dataclass(frozen=True)
class Request:
    id: int
    name: str
    payload: bytes = b""

    def encode(self):
        return b"\x02" + struct.pack(">I", self.id) + encode_name(self.name) + self.payload


@dataclass(frozen=True)
class Reset:
    id: int

    def encode(self):
        return b"\x03" + struct.pack(">I", self.id)


@dataclass(frozen=True)
class Response:
    id: int
    payload: bytes = b""

    def encode(self):
        return b"\x04" + struct.pack(">I", self.id) + self.payload


@dataclass(frozen=True)
class Closed:
    """What `Client.recv` returns in a frame's place when the server sent a WebSocket Close."""

    code: int | None
    reason: str = ""


class Malformed(Exception):
    def __init__(self, close_code, what):
        super().__init__(what)
        self.close_code = close_code


def encode_name(name):
    name = name.encode()
    return bytes([len(name)]) + name


def decode(message, max_payload=MAX_PAYLOAD):
    """The frame in one binary message, or `Malformed` with the code to close with."""
    rest = message

    def take(count, what):
        nonlocal rest
        if len(rest) < count:
            raise Malformed(1002, f"the frame ends within its {what}")
        taken, rest = rest[:count], rest[count:]
        return taken

    def take_id():
        return struct.unpack(">I", take(4, "id"))[0]

    def take_name():
        (length,) = take(1, "name length")
        try:
            return take(length, "name").decode()
        except UnicodeDecodeError:
            raise Malformed(1007, "the name is not UTF-8") from None

    (opcode,) = take(1, "opcode")
    if opcode == 1:
        frame = Notify(take_name(), rest)
    elif opcode == 2:
        frame = Request(take_id(), take_name(), rest)
    elif opcode == 3:
        frame = Reset(take_id())
        if rest:
            raise Malformed(1002, "a Reset has nothing after its id")
    elif opcode == 4:
        frame = Response(take_id(), rest)
    else:
        raise Malformed(1002, f"there is no opcode {opcode}")
    if len(rest) > max_payload:
        raise Malformed(1009, f"a payload of {len(rest)} bytes is over the maximum of {max_payload}")
    return frame


def error_code(payload):
    """The code of an error answer, whose whole form is checked on the way."""
    answer = json.loads(payload)
    assert set(answer) == {"error"} and set(answer["error"]) == {"code", "message"}, answer
    assert isinstance(answer["error"]["message"], str) and answer["error"]["message"], answer
    return answer["error"]["code"]


# --- WebSocket frames --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WebSocketFrame:
    opcode: int
    payload: bytes = b""
    fin: bool = True


def websocket_frame(opcode, payload=b"", *, fin=True, rsv=0, mask=b"\x5a\x01\xff\x7e", length=None):
    """The bytes of one frame. `mask=None` leaves it unmasked; `length` claims another length than the payload has."""
    length = len(payload) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    mask_bit = 0x80 if mask is not None else 0
    if length <= 125:
        head += bytes([mask_bit | length])
    elif length <= 0xFFFF:
        head += struct.pack(">BH", mask_bit | 126, length)
    else:
        head += struct.pack(">BQ", mask_bit | 127, length)
    return head + payload if mask is None else head + mask + masked(payload, mask)


def masked(payload, mask):
    # As integers, because a loop over the bytes of a megabyte takes Python a large part of a second.
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def fragments(message, *cuts):
    """The bytes of one binary message, cut into fragments at the given places."""
    edges = [0, *cuts, len(message)]
    parts = [message[start:end] for start, end in zip(edges, edges[1:])]
    return b"".join(
        websocket_frame(BINARY if i == 0 else CONTINUATION, part, fin=i == len(parts) - 1)
        for i, part in enumerate(parts)
    )


def close_payload(code, reason=""):
    return struct.pack(">H", code) + reason.encode()


# --- One connection ----------------------------------------------------------------------------------------------


def handshake_headers(**changes):
    """The headers of a good upgrade; a change to `None` leaves a header out. `Sec_WebSocket_Key` names `Sec-WebSocket-Key`."""
    headers = {
        "Host": "roomcast.test",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in headers.items() if value is not None}


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


class Client:
    def __init__(self, port, wrap=lambda sock: sock, host="127.0.0.1", source=None, **headers):
        self.answers_pings = True
        self.inbox = deque()  # frames that `call` met while it waited for its own Response
        self._received = bytearray()
        self._next_id = 1_000_000  # far from the ids that tests choose by hand
        plain = socket.create_connection((host, port), DEADLINE, source and (source, 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = wrap(plain)
        self._shake_hands(handshake_headers(**headers))

    def _shake_hands(self, headers):
        lines = ["GET /socket HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.send_bytes("\r\n".join(lines).encode())
        while b"\r\n\r\n" not in self._received:
            self._receive(DEADLINE)
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status, *answers = head.decode().split("\r\n")
        answers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in answers)}
        assert status.split()[1] == "101", head
        assert answers["sec-websocket-accept"] == accept_key(headers["Sec-WebSocket-Key"])
        assert answers["sec-websocket-protocol"] == SUBPROTOCOL

    # Sending

    def send_bytes(self, data):
        self.socket.settimeout(DEADLINE)
        self.socket.sendall(data)

    def try_send_bytes(self, data):
        """Sends what the server may refuse before it has read all of it."""
        try:
            self.send_bytes(data)
        except OSError:
            pass

    def send_websocket(self, opcode, payload=b"", **bits):
        self.send_bytes(websocket_frame(opcode, payload, **bits))

    def send(self, *frames):
        """Sends frames, or messages as bytes, in one write."""
        messages = [frame if isinstance(frame, bytes) else frame.encode() for frame in frames]
        self.send_bytes(b"".join(websocket_frame(BINARY, message) for message in messages))

    # Receiving

    def _receive(self, timeout):
        self.socket.settimeout(max(timeout, 0.001))
        data = self.socket.recv(256 * 1024)
        if not data:
            raise EOFError("the server closed the TCP connection")
        self._received += data

    def recv_websocket(self, timeout=DEADLINE):
        """The next WebSocket frame, whatever it is. `TimeoutError` after `timeout`, `EOFError` or `OSError` at the end."""
        ends = time.monotonic() + timeout
        while (frame := self._take_websocket_frame()) is None:
            self._receive(ends - time.monotonic())
        return frame

    def _take_websocket_frame(self):
        data = self._received
        if len(data) < 2:
            return None
        assert data[0] & 0x70 == 0, "the server set an RSV bit"
        assert data[1] & 0x80 == 0, "the server masked a frame"
        length, start = data[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(data) < start:
                return None
            length = int.from_bytes(data[2:start], "big")
            assert length > (125 if start == 4 else 0xFFFF), "the server did not use the shortest form of a length"
        if len(data) < start + length:
            return None
        frame = WebSocketFrame(data[0] & 0x0F, bytes(data[start : start + length]), fin=bool(data[0] & 0x80))
        assert frame.opcode < CLOSE or (frame.fin and length <= 125), f"a control frame is too long or in parts: {frame}"
        del data[: start + length]
        return frame

    def recv_message(self, timeout=DEADLINE):
        """The bytes of the next binary message, or `Closed`."""
        assert not self.inbox, "what is in the inbox came earlier"
        ends = time.monotonic() + timeout
        message = b""
        while True:
            frame = self.recv_websocket(ends - time.monotonic())
            if frame.opcode == PING and self.answers_pings:
                self.send_websocket(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                code = int.from_bytes(frame.payload[:2], "big") if frame.payload else None
                return Closed(code, frame.payload[2:].decode())
            elif frame.opcode < CLOSE:
                assert frame.opcode == (CONTINUATION if message else BINARY), f"not a binary message: {frame}"
                message += frame.payload
                if frame.fin:
                    return message

    def recv(self, timeout=DEADLINE):
        """The next Roomcast frame, or `Closed`."""
        if self.inbox:
            return self.inbox.popleft()
        message = self.recv_message(timeout)
        return message if isinstance(message, Closed) else decode(message)

    def call(self, name, payload=b"", timeout=DEADLINE):
        """The payload of the Response. Frames that arrive before it stay in order for `recv`."""
        self._next_id += 1
        self.send(Request(self._next_id, name, payload))
        ends = time.monotonic() + timeout
        skipped = []
        while True:
            frame = self.inbox.popleft() if self.inbox else self.recv(ends - time.monotonic())
            if isinstance(frame, Response) and frame.id == self._next_id:
                self.inbox.extendleft(reversed(skipped))
                return frame.payload
            assert not isinstance(frame, Closed), f"closed instead of an answer to {name}: {frame}"
            skipped.append(frame)

    # Expectations

    def expect_close(self, code, timeout=DEADLINE):
        """Waits for a Close with this code and for the end of the TCP connection. Returns the frames before it."""
        before = []
        ends = time.monotonic() + timeout
        while not isinstance(frame := self.recv(ends - time.monotonic()), Closed):
            before.append(frame)
        assert frame.code == code, frame
        self.closed = frame
        self.try_send_bytes(websocket_frame(CLOSE, close_payload(code)))
        self.expect_end()
        return before

    def expect_refusal(self, code):
        """A Close with this code, before any other frame, and with a sentence as its reason."""
        assert self.expect_close(code) == []
        assert len(self.closed.reason.split()) >= 2, f"the reason is no sentence: {self.closed}"

    def expect_end(self, timeout=DEADLINE):
        try:
            frame = self.recv_websocket(timeout)
        except (EOFError, ConnectionError):
            return
        raise AssertionError(f"a frame where the connection should end: {frame}")

    def expect_silence(self, seconds=0.3):
        assert not self.inbox
        try:
            frame = self.recv(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"a frame where none should come: {frame}")

    # Ends

    def close_socket(self):
        self.socket.close()

    def reset_connection(self):
        """Ends the connection with a TCP RST, as a crashed peer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


# --- What several modules ask of a node --------------------------------------------------------------------------


def wait_until(condition, what, timeout=DEADLINE):
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, f"not within {timeout} s: {what}"
        time.sleep(0.002)


def running(client):
    return int(client.call("running"))


def wait_for_running(client, count):
    wait_until(lambda: running(client) == count, f"{count} calls running")


def members(client, room):
    """The ids of a room's connections."""
    answer = json.loads(client.call(f"rooms/members/{room}"))
    assert answer["count"] == len(answer["members"]), answer
    return [member["connection"] for member in answer["members"]]


def connection_id(client):
    """The id by which the node knows this connection, seen through a room that nobody else is in."""
    room = f"only-{os.urandom(8).hex()}"
    assert client.call(f"rooms/join/{room}") == b""
    (own_id,) = members(client, room)
    assert client.call(f"rooms/leave/{room}") == b""
    return own_id
