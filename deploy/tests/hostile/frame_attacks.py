"""Attacks by a client with a valid token, which has the rights of the role `member`, and floods the node with frames."""

import asyncio
import itertools
import os
import time

from attack import ALWAYS_ALLOWED, attack
from connection import BINARY, PING, Ended, Notify, Request, encoded, outcome, websocket_frame
from client import CONTINUATION, TEXT, Reset, Response
from node import MAX_PAYLOAD

# Seconds between two floods of one kind. Each flood keeps a CPU of the node or of Redis busy for some milliseconds, as its
# limits permit. With shorter pauses, the test would measure the CPUs of this machine.
FLOOD_PAUSE = 8

names = (f"hostile:{number}" for number in itertools.count())

# --- Rights --------------------------------------------------------------------------------------------------------


@attack("rights: names that could widen a pattern", "PERMISSION_DENIED")
async def confusing_users(client):
    """The role grants `user:{user}`; no user may join the room of another one."""
    for token in client.confusing:
        with await client.target.connect(token) as connection:
            for room in ("user:app-victim", "user:app-a:b", "user:app-*", "user:app-**", "user:*"):
                if (answer := await connection.call(f"rooms/join/{room}")) != "PERMISSION_DENIED":
                    return f"{answer} for {room}"
    return "PERMISSION_DENIED"


@attack("rights: rooms and methods of others", "PERMISSION_DENIED")
async def foreign_rooms(client):
    """Also listens, because an event of a foreign room must not arrive."""
    with await client.target.connect(client.token) as connection:
        for room in ("load-00000000-0", "load:1", "hostile", "*", "**", "hostile:1:2"):
            for name in (f"rooms/join/{room}", f"rooms/publish/{room}/hostile", f"rooms/members/{room}"):
                if (answer := await connection.call(name)) != "PERMISSION_DENIED":
                    return f"{answer} for {name}"
        for method in ("running", "myip", "**", "auth/left"):
            if (answer := await connection.call(method)) not in ("PERMISSION_DENIED", "NOT_FOUND"):
                return f"{answer} for {method}"
        return "PERMISSION_DENIED"


@attack("refresh: to another user, and with an older token", "UNAUTHENTICATED | PERMISSION_DENIED | INVALID_ARGUMENT")
async def hostile_refresh(client):
    now = int(time.time())
    with await client.target.connect(client.token) as connection:
        for token in (client.victim, client.signer.token(iat=now - 600), b"\xff\xfe"):
            answer = await connection.call("auth/refresh", token if isinstance(token, bytes) else token.encode())
            if answer == "ok":
                return "ok"
        kept = await connection.call("echo")
        return answer if kept == "ok" else f"{kept} after a refused refresh"


@attack("refresh: a flood", "RESOURCE_EXHAUSTED")
async def refresh_flood(client):
    with await client.target.connect(client.token) as connection:
        return await flood(connection, [Request(id, "auth/refresh", client.token.encode()) for id in range(100)])


@attack("refresh: none, so the token expires", "close 4401", at_once=2)
async def expire(client):
    now = int(time.time())
    with await client.target.connect(client.signer.token(exp=now + 10)) as connection:
        await connection.call("rooms/join/hostile:expiring")
        return await connection.end()


# --- Rates ---------------------------------------------------------------------------------------------------------


async def flood(connection, frames):
    """Sends requests at once. The outcome is that of the first one that fails, otherwise `ok`."""
    await connection.send_bytes(encoded(*frames))
    failures = []
    for _ in frames:
        while isinstance(frame := await connection.receive(), Notify):
            pass
        if (answer := outcome(frame.payload)) != "ok":
            failures.append(answer)
    return failures[0] if failures else "ok"


@attack("rates: calls", "RESOURCE_EXHAUSTED", every=FLOOD_PAUSE)
async def call_flood(client):
    with await client.target.connect(client.token) as connection:
        return await flood(connection, [Request(id, "echo") for id in range(700)])


@attack("rates: publishes", "RESOURCE_EXHAUSTED", every=FLOOD_PAUSE)
async def publish_flood(client):
    with await client.target.connect(client.token) as connection:
        await connection.call("rooms/join/hostile:flood")
        return await flood(connection, [Request(id, "rooms/publish/hostile:flood/hostile", b"x") for id in range(300)])


@attack("rates: joins of new rooms", "RESOURCE_EXHAUSTED", every=FLOOD_PAUSE)
async def new_rooms(client):
    with await client.target.connect(client.token) as connection:
        return await flood(connection, [Request(id, f"rooms/join/{next(names)}") for id in range(200)])


@attack("rates: joins and leaves", "RESOURCE_EXHAUSTED", every=FLOOD_PAUSE)
async def join_and_leave(client):
    pairs = [(Request(2 * id, "rooms/join/hostile:churn"), Request(2 * id + 1, "rooms/leave/hostile:churn")) for id in range(250)]
    with await client.target.connect(client.token) as connection:
        return await flood(connection, [request for pair in pairs for request in pair])


FRAMES = encoded(*[Notify("ping", b"x")] * 1500)
RESETS = encoded(*[Reset(id) for id in range(1500)])
PINGS = b"".join([websocket_frame(PING, b"x")] * 400)
NOTIFIED_JOINS = encoded(*[Notify("rooms/join/hostile:notified")] * 300)


@attack("rates: notifications", "close 1008", every=FLOOD_PAUSE)
async def frame_flood(client):
    return await send_and_wait(client, FRAMES)


@attack("rates: resets of unknown calls", "close 1008", every=FLOOD_PAUSE)
async def reset_flood(client):
    return await send_and_wait(client, RESETS)


@attack("rates: pings", "close 1008", every=0.5)
async def ping_flood(client):
    return await send_and_wait(client, PINGS)


@attack("rates: joins in notifications", "close 1008", every=FLOOD_PAUSE)
async def notified_joins(client):
    return await send_and_wait(client, NOTIFIED_JOINS)


async def send_and_wait(client, data):
    """The outcome with which the node ends a connection that sends these bytes."""
    with await client.target.connect(client.token) as connection:
        await connection.send_bytes(data)
        return await connection.end()


# --- Messages ------------------------------------------------------------------------------------------------------


@attack("messages: a message that never ends", "close 1008", every=0.1, at_once=20, slow=True)
async def unfinished_message(client):
    with await client.target.connect(client.token) as connection:
        ending = asyncio.create_task(connection.end())
        await connection.send_bytes(websocket_frame(BINARY, b"\x01\x04ping", fin=False))
        while not ending.done():
            await connection.send_bytes(websocket_frame(CONTINUATION, b"x", fin=False))
            await asyncio.wait([ending], timeout=1)
        return ending.result()


EMPTY_FRAGMENTS = websocket_frame(BINARY, b"", fin=False) + websocket_frame(CONTINUATION, b"", fin=False) * 1100


@attack("messages: empty fragments", "close 1009")
async def empty_fragments(client):
    return await send_and_wait(client, EMPTY_FRAGMENTS)


@attack("messages: a payload over max_payload", "close 1009")
async def large_payload(client):
    return await send_and_wait(client, encoded(Request(1, "echo", bytes(MAX_PAYLOAD + 1))))


@attack("messages: a length of 2^62 bytes", "close 1009")
async def huge_length(client):
    return await send_and_wait(client, websocket_frame(BINARY, b"x", length=2**62))


for problem, message, code in [
    ("a name that is not UTF-8", b"\x01\x02\xff\xfe", 1007),
    ("an empty message", b"", 1002),
    ("an unknown opcode", b"\x09xyz", 1002),
    ("a Response", Response(1, b"x").encode(), 1002),
    ("a truncated Request", b"\x02\x00\x00", 1002),
]:

    @attack(f"messages: {problem}", f"close {code}")
    async def malformed(client, message=message):
        return await send_and_wait(client, websocket_frame(BINARY, message))


@attack("messages: text", "close 1003")
async def text(client):
    return await send_and_wait(client, websocket_frame(TEXT, b"hello"))


@attack("messages: without a mask", "close 1002")
async def unmasked(client):
    return await send_and_wait(client, websocket_frame(BINARY, b"\x01\x04ping", mask=None))


@attack("messages: random bytes", "close 1002", every=0.2, allowed={"close 1003", "close 1007", "close 1009", "close 1008"})
async def random_frames(client):
    return await send_and_wait(client, os.urandom(2000))


# --- Memory --------------------------------------------------------------------------------------------------------


@attack("memory: responses that nobody reads", "close 4408", every=FLOOD_PAUSE, at_once=2)
async def unread_responses(client):
    calls = encoded(*[Request(id, "echo", bytes(64 * 1024)) for id in range(150)])
    with await client.target.connect(client.token, receive_buffer=4096) as connection:
        try:
            async with asyncio.timeout(5):
                await connection.send_bytes(calls)
        except TimeoutError:
            pass  # The node closes the connection, and reads no more.
        return await connection.end()


@attack("memory: events that nobody reads", "close 4408", every=FLOOD_PAUSE, allowed={"RESOURCE_EXHAUSTED"})
async def unread_events(client):
    """The members of a room do not read 8 MiB of events."""
    members = [await client.target.connect(client.token, receive_buffer=4096) for _ in range(4)]
    try:
        for member in members:
            if (answer := await member.call("rooms/join/hostile:unread")) != "ok":
                return answer
        with await client.target.connect(client.token) as publisher:
            for _ in range(128):
                await publisher.call("rooms/publish/hostile:unread/hostile", bytes(64 * 1024))
        return await members[0].end()
    finally:
        for member in members:
            member.close()


@attack("memory: calls in flight with large payloads", "RESOURCE_EXHAUSTED", every=FLOOD_PAUSE)
async def calls_in_flight(client):
    with await client.target.connect(client.token) as connection:
        calls = [Request(id, "long", bytes(64 * 1024)) for id in range(32)]
        await connection.send(*calls)
        while isinstance(frame := await connection.receive(), Notify):
            pass
        return outcome(frame.payload)


@attack("memory: calls over max_calls", "RESOURCE_EXHAUSTED", every=FLOOD_PAUSE)
async def too_many_calls(client):
    with await client.target.connect(client.token) as connection:
        await connection.send(*[Request(id, "long") for id in range(1100)])
        while isinstance(frame := await connection.receive(), Notify):
            pass
        return outcome(frame.payload)


@attack("memory: unfinished messages of many connections", "close 1013", every=FLOOD_PAUSE, at_once=3, allowed={"close 1008"})
async def unfinished_megabytes(client):
    """Together, their messages exceed inbound_memory, so the node closes those that hold the most."""
    start = websocket_frame(BINARY, bytes(MAX_PAYLOAD - 1024), fin=False)
    connections = []
    try:
        for _ in range(60):
            try:
                connections.append(await client.target.connect(client.token))
            except Ended as refused:
                if not connections or refused.outcome not in ALWAYS_ALLOWED:
                    raise
                break  # The memory is above the budget.
            await connections[-1].send_bytes(start)
        ends = [asyncio.create_task(connection.end()) for connection in connections]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for connection in connections:
            connection.close()


@attack("memory: rooms of the node", "RESOURCE_EXHAUSTED", every=0.5, at_once=15, allowed={"ok"})
async def many_rooms(client):
    """Stays in its rooms, so that they add up to max_node_rooms. Other attacks need rooms, too, so it begins after them."""
    with await client.target.connect(client.token) as connection:
        await asyncio.sleep(5)
        answer = await flood(connection, [Request(id, f"rooms/join/{next(names)}") for id in range(90)])
        await asyncio.sleep(5)
        return answer


@attack("members: lists of a large room", "ok", every=0.2, allowed={"RESOURCE_EXHAUSTED"})
async def member_lists(client):
    with await client.target.connect(client.token) as connection:
        await connection.call("rooms/join/hostile:large")
        return await flood(connection, [Request(id, "rooms/members/hostile:large") for id in range(20)])
