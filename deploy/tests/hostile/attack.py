"""What an attack is, and how the hostile client repeats it."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from connection import Ended, Target
from tokens import Signer

# Outcomes that every attack may have, because all run at once: the node closes the socket that has waited longest for
# its client, and while its memory is above a budget, it closes the connections that hold the most, and refuses others.
ALWAYS_ALLOWED = {"cut", "close 1013", "status 503"}

# Longer than every deadline of the node.
PATIENCE = 50

ATTACKS = []


@dataclass(frozen=True)
class Client:
    """What an attack can use. Each attack has an address of its own, so that the limits of one do not stop another."""

    target: Target
    signer: Signer
    token: str
    victim: str  # the token of another user
    confusing: list  # tokens of users whose names a grant could confuse with others
    revoked: str


@dataclass
class Attack:
    """`at_once` workers repeat `run`, each with a pause of `every` seconds, which bounds the CPU time that they take. They
    begin at different times, so that the node's load is the same all the time.

    At least one run must end with an outcome in `expected`; `allowed` are outcomes that may occur, too. All others mean
    that the attack succeeded.
    """

    name: str
    run: object
    every: float
    at_once: int
    expected: set
    allowed: set
    outcomes: Counter = field(default_factory=Counter)

    async def repeat(self, client, ends):
        await asyncio.sleep(random.uniform(0, self.every))
        while time.monotonic() < ends:
            try:
                async with asyncio.timeout(PATIENCE):
                    outcome = await self.run(client)
            except Ended as ended:
                outcome = ended.outcome
            except TimeoutError:
                outcome = "timeout"
            self.outcomes[outcome] += 1
            await asyncio.sleep(self.every)

    def failures(self):
        unexpected = set(self.outcomes) - self.expected - self.allowed - ALWAYS_ALLOWED
        failures = [f"{self.name}: {outcome} ({self.outcomes[outcome]} times)" for outcome in sorted(unexpected)]
        if not self.expected & set(self.outcomes):
            failures.append(f"{self.name}: never {' or '.join(sorted(self.expected))}, only {dict(self.outcomes)}")
        return failures


def attack(name, expected, every=1.0, at_once=1, allowed=()):
    """Registers a function as an attack. Several expected outcomes are separated by ` | `."""

    def register(run):
        ATTACKS.append(Attack(name, run, every, at_once, set(expected.split(" | ")), set(allowed)))
        return run

    return register


async def run_all(client, seconds):
    """Runs all attacks at once. What is under way at the end does not count."""
    ends = time.monotonic() + seconds
    repeats = []
    for number, one in enumerate(ATTACKS, start=1):
        own = replace(client, target=replace(client.target, address=f"203.0.113.{number}"))
        repeats += [asyncio.create_task(one.repeat(own, ends)) for _ in range(one.at_once)]
    try:
        # A task that fails is an error of this program.
        done, _ = await asyncio.wait(repeats, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in repeats:
            task.cancel()
        await asyncio.gather(*repeats, return_exceptions=True)
