"""What an attack is, and how the hostile client repeats it."""

import asyncio
import contextlib
import random
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

    An attack that is `slow` needs longer than a turn of the node for its outcome, and little of the node. It goes on between
    the turns.
    """

    name: str
    run: object
    every: float
    at_once: int
    expected: set
    allowed: set
    slow: bool
    address: str
    outcomes: Counter = field(default_factory=Counter)

    async def repeat(self, client):
        client = replace(client, target=replace(client.target, address=self.address))
        await asyncio.sleep(random.uniform(0, self.every))
        while True:
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


def attack(name, expected, every=1.0, at_once=1, allowed=(), slow=False):
    """Registers a function as an attack. Several expected outcomes are separated by ` | `."""

    def register(run):
        address = f"203.0.113.{len(ATTACKS) + 1}"
        ATTACKS.append(Attack(name, run, every, at_once, set(expected.split(" | ")), set(allowed), slow, address))
        return run

    return register


async def run_in_turns(client, wait_for_turn):
    """Runs all attacks at once in each turn. `wait_for_turn` returns at the start of a turn, and then at its end. It returns
    nothing at the start if there are no more turns. What is under way at the end of a turn does not count.
    """
    async with repeated(client, [one for one in ATTACKS if one.slow]):
        while await wait_for_turn():
            async with repeated(client, [one for one in ATTACKS if not one.slow]):
                await wait_for_turn()


@contextlib.asynccontextmanager
async def repeated(client, attacks):
    """Repeats the attacks until the end of the block. An attack that raises an exception is an error of this program."""
    async with asyncio.TaskGroup() as group:
        repeats = [group.create_task(one.repeat(client)) for one in attacks for _ in range(one.at_once)]
        yield
        for task in repeats:
            task.cancel()
