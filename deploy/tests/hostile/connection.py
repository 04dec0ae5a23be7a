"""The sockets and WebSocket connections of the hostile client.

Every attack ends with an outcome: `status 401` for a response, `close 1008` for a Close, `cut` for a connection that the
node closed without either, or the code of an error, such as `PERMISSION_DENIED`. `Ended` carries an outcome through the
functions in between.
"""

import asyncio
import functools
import json
import socket
import ssl
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "crates/node/tests/protocol"))

from client import BINARY, CLOSE, PING, PONG, Notify, Request, decode, handshake_headers, websocket_frame  # noqa: E402

# The node trusts this address to name clients in X-Forwarded-For, so that each attack can have an address of the internet.
PROXY = "127.0.0.2"
# What the attacks publish, what `ping` returns, and what the node sends by itself. Any other event is of a room of others.
OWN_EVENTS = ("hostile", "pong", "auth/expiring", "auth/left")
# A message of the node has at most this size here: the largest event is 64 KiB.
READ_BUFFER = 256 * 1024


class Ended(Exception):
    """The node ended the attack with this outcome."""

    def __init__(self, outcome):
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(frozen=True)
class Target:
    """The node, and the client's address."""

    port: int
    internal_port: int
    address: str
    tls: bool = False

    async def open_socket(self, internal=False, raw=False, receive_buffer=None):
        """A reader and a writer. `raw` leaves out TLS, and a small `receive_buffer` makes the node's output wait."""
        plain = socket.socket()
        plain.setblocking(False)
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            plain.bind((PROXY, 0))
            port = self.internal_port if internal else self.port
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
            secure = {"ssl": unverified(), "server_hostname": "localhost"} if self.tls and not internal and not raw else {}
            return await asyncio.open_connection(sock=plain, limit=READ_BUFFER, **secure)
        except OSError:
            plain.close()
            raise Ended("cut") from None

    async def http(self, request, internal=False):
        """Sends the bytes of a request, and returns the status of the response."""
        reader, writer = await self.open_socket(internal)
        try:
            writer.write(request)
            return await status(reader)
        finally:
            writer.transport.abort()

    def upgrade(self, token=None, **changes):
        """The bytes of an upgrade. Each change is a header; a list repeats it, and `None` leaves it out."""
        headers = handshake_headers(X_Forwarded_For=self.address)
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        lines = ["GET /socket HTTP/1.1"]
        for name, values in headers.items():
            lines += [f"{name}: {value}" for value in (values if isinstance(values, list) else [values]) if value is not None]
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self, token, receive_buffer=None, **changes):
        """A WebSocket connection; `Ended` with the status if the node refuses it."""
        reader, writer = await self.open_socket(receive_buffer=receive_buffer)
        try:
            writer.write(self.upgrade(token, **changes))
            answer = await status(reader)
            if answer != "status 101":
                raise Ended(answer)
        except BaseException:
            writer.transport.abort()
            raise
        return Connection(reader, writer)


@functools.cache
def unverified():
    """TLS that accepts every certificate, because the hostile client has nothing to lose."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def status(reader):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, EOFError, asyncio.IncompleteReadError):
        raise Ended("cut") from None
    return f"status {head.split()[1].decode()}"


class Connection:
    """A WebSocket connection. Use it with `with`, which ends it without a Close."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.writer.transport.abort()

    async def send_bytes(self, data):
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError:
            pass  # What the node has sent before is still to be read, such as its Close.

    async def send(self, *frames):
        await self.send_bytes(encoded(*frames))

    async def receive(self):
        """The next Roomcast frame. `Ended` at a Close, at the end, and at an event that this client has no right to."""
        while True:
            try:
                opcode, length = await self.reader.readexactly(2)
                if length == 126:
                    (length,) = struct.unpack(">H", await self.reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
                payload = await self.reader.readexactly(length)
            except (OSError, EOFError):
                raise Ended("cut") from None
            match opcode & 0x0F:
                case code if code == PING:
                    await self.send_bytes(websocket_frame(PONG, payload))
                case code if code == CLOSE:
                    raise Ended(f"close {int.from_bytes(payload[:2], 'big')}")
                case code if code == BINARY:
                    frame = decode(payload)
                    if isinstance(frame, Notify) and frame.name not in OWN_EVENTS:
                        raise Ended(f"received the event {frame.name!r} of another room")
                    return frame

    async def call(self, name, payload=b""):
        """The outcome of a call: `ok`, or the code of the error."""
        await self.send(Request(1, name, payload))
        while isinstance(frame := await self.receive(), Notify):
            pass
        return outcome(frame.payload)

    async def end(self):
        """The outcome with which the node ends the connection."""
        try:
            while True:
                await self.receive()
        except Ended as ended:
            return ended.outcome


def encoded(*frames):
    """The bytes of messages."""
    return b"".join(websocket_frame(BINARY, frame.encode()) for frame in frames)


def outcome(payload):
    if not payload.startswith(b'{"error"'):
        return "ok"
    return json.loads(payload)["error"]["code"]
