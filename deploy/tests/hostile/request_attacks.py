"""Attacks before an upgrade: with tokens, origins, sockets and floods, and on the internal listener."""

import asyncio
import os

from attack import attack
from connection import status
from tokens import encoded


def add_bad_tokens(tokens):
    """An attack for each of the tokens that the node must reject."""
    for problem, token in tokens.items():

        async def present(client, token=token):
            return await client.target.http(client.target.upgrade(token))

        attack(f"token: {problem}", "status 401")(present)


@attack("token: revoked", "status 401")
async def revoked_token(client):
    return await client.target.http(client.target.upgrade(client.revoked))


@attack("token: a flood of random kids", "status 401", every=0.05)
async def random_kids(client):
    token = client.signer.token(header={"kid": os.urandom(8).hex()}, sign=lambda _: bytes(64))
    return await client.target.http(client.target.upgrade(token))


@attack("token: in the wrong part of the request", "status 401")
async def misplaced_token(client):
    token, target = client.token, client.target
    answers = [await target.http(target.upgrade(Cookie=f"token={token}; roomcast.token={token}; Authorization=Bearer {token}"))]
    answers.append(await target.http(target.upgrade().replace(b"/socket", f"/socket?token={token}".encode())))
    answers.append(await target.http(target.upgrade(Authorization=[f"Bearer {token}", f"Bearer {token}"])))
    return next((answer for answer in answers if answer != "status 401"), "status 401")


@attack("token: 20 KiB of headers", "status 431 | status 401")
async def huge_headers(client):
    return await client.target.http(client.target.upgrade("x" * 20_000))


@attack("token: random parts", "status 401", every=0.2)
async def random_token(client):
    token = ".".join(encoded(os.urandom(length)) for length in (40, 200, 64))
    return await client.target.http(client.target.upgrade(token))


for problem, origin in {
    "foreign": "https://evil.example",
    "null": "null",
    "repeated": ["https://app.example", "https://app.example"],
    "malformed": "https://app.example/@evil",
    "similar": "https://app.example.evil.example",
    "of another port": "https://app.example:8443",
}.items():

    @attack(f"origin: {problem}", "status 403")
    async def present_origin(client, origin=origin):
        return await client.target.http(client.target.upgrade(client.token, Origin=origin))


@attack("origin: none, and no token", "status 401")
async def no_origin_no_token(client):
    return await client.target.http(client.target.upgrade())


# --- Sockets -------------------------------------------------------------------------------------------------------


@attack("sockets: silent", "cut", every=1, at_once=250)
async def silent_socket(client):
    return await hold(await client.target.open_socket(raw=True), b"")


@attack("sockets: slow headers", "cut", every=1, at_once=50)
async def slow_headers(client):
    """A header each second keeps the client active, but the request never ends."""
    reader, writer = await client.target.open_socket()
    answer = asyncio.create_task(status(reader))
    try:
        writer.write(b"GET /socket HTTP/1.1\r\n")
        while not answer.done():
            writer.write(b"X-Slow: x\r\n")
            await asyncio.wait([answer], timeout=1)
        return answer.result()
    finally:
        answer.cancel()
        writer.transport.abort()


@attack("sockets: half a TLS handshake", "cut | status 400", at_once=50)
async def half_tls(client):
    return await hold(await client.target.open_socket(raw=True), bytes.fromhex("160301020001000001fc0303") + os.urandom(100))


async def hold(stream, data):
    """Sends the bytes, and waits until the node ends the connection."""
    reader, writer = stream
    try:
        writer.write(data)
        return await status(reader)
    finally:
        writer.transport.abort()


@attack("sockets: random bytes", "status 400 | cut", every=0.1)
async def random_bytes(client):
    return await hold(await client.target.open_socket(raw=True), os.urandom(500) + b"\r\n\r\n")


@attack("sockets: a body that never ends", "status 405 | status 400 | cut", every=0.5)
async def endless_body(client):
    head = b"POST /socket HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n"
    return await client.target.http(head + b"1\r\nx\r\n" * 1000)


@attack("sockets: 1,000 requests at once", "status 200", every=0.5)
async def pipelined(client):
    return await client.target.http(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n" * 1000)


@attack("connections: a flood from one address", "status 429", every=0.1, at_once=10, allowed={"opened"})
async def connection_flood(client):
    with await client.target.connect(client.token):
        return "opened"


HELD = []


@attack("connections: over 1,000 from one address", "status 429", every=0.1, at_once=10, allowed={"opened"})
async def too_many_connections(client):
    """The connections stay open in a large room, and nothing is read from them."""
    connection = await client.target.connect(client.token, receive_buffer=4096)
    await connection.call("rooms/join/hostile:large")
    HELD.append(connection)
    return "opened"


# --- The internal listener -----------------------------------------------------------------------------------------


def api(path, method="GET", **headers):
    headers = {"Host": "127.0.0.1"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "Content-Length: 0", "", ""]).encode()


@attack("internal: wrong keys", "status 401", every=0.05, allowed={"status 429"})
async def wrong_key(client):
    return await client.target.http(api("/v1/connections", Authorization=f"Bearer {os.urandom(16).hex()}"), internal=True)


@attack("internal: the token of a client as the key", "status 401 | status 429")
async def token_as_key(client):
    request = api("/v1/revocations", "POST", Authorization=f"Bearer {client.token}")
    return await client.target.http(request, internal=True)


for problem, headers in {
    "a foreign Origin": {"Origin": "https://evil.example"},
    "an Origin equal to a foreign Host, without a key": {"Host": "evil.example", "Origin": "http://evil.example"},
    "Sec-Fetch-Site cross-site": {"Sec_Fetch_Site": "cross-site"},
}.items():

    @attack(f"internal: {problem}", "status 403 | status 401 | status 429")
    async def from_page(client, headers=headers):
        return await client.target.http(api("/v1/rooms/lobby/events/x", "POST", **headers), internal=True)


@attack("internal: random bytes", "status 400 | cut", every=0.2)
async def random_internal_bytes(client):
    return await client.target.http(os.urandom(300) + b"\r\n\r\n", internal=True)


@attack("internal: silent sockets", "cut", every=0.1, at_once=50)
async def silent_internal_socket(client):
    return await hold(await client.target.open_socket(internal=True), b"")
