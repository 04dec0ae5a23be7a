"""The node under attack: its options, the memory that docs/reference/limits.md derives from them, and its process."""

import http.client
import json
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import tokens

sys.path.append(str(Path(__file__).parents[1]))

from steady_load import free_ports, preferred  # noqa: E402

KIB, MIB = 1024, 1024 * 1024
START_DEADLINE = 30
# The node divides these among its sockets: 224 for clients before their upgrade.
DESCRIPTORS = 4096

MAX_PAYLOAD = 256 * KIB

# Low enough that one hostile client reaches each of them, even on a busy machine.
OPTIONS = {
    "max_connections": 3000,
    "max_payload": MAX_PAYLOAD,
    "max_inbound": MIB,
    "max_outbound": MIB,
    "inbound_memory": 32 * MIB,
    "outbound_memory": 32 * MIB,
    "max_rooms": 100,
    "max_node_rooms": 1000,
    "rates.calls": '"100/s burst 500"',
    "rates.connections": '"20/s burst 1000"',
    "rates.frames": '"500/s burst 1000"',
    "rates.joins": '"20/s burst 200"',
    "rates.new_rooms": '"10/s burst 100"',
    "rates.publishes": '"50/s burst 200"',
}


def memory_bound(http_connections, tls):
    """The sum of "Worst-case memory" in docs/reference/limits.md, for a node with Redis, in bytes."""
    connections, rooms = OPTIONS["max_connections"], OPTIONS["max_node_rooms"]
    parts = [
        10 * MIB,
        OPTIONS["inbound_memory"],
        OPTIONS["outbound_memory"],
        connections * (9.5 if tls else 2.0) * KIB,
        rooms * 0.7 * KIB,
        connections * OPTIONS["max_rooms"] * 0.14 * KIB,
        http_connections * (40 if tls else 16) * KIB,
        (connections + 65_536) * 0.1 * KIB,
        2 * 64 * MIB,
    ]
    return sum(parts)


CONFIG = """\
listen = "127.0.0.1:{port}"
internal_listen = "127.0.0.1:{internal_port}"
demo = true
log = "roomcast=debug,info"
trusted_proxies = "{proxy}"
redis = "redis://:{redis_password}@127.0.0.1:{redis_port}"
cluster_secret = "{cluster_secret}"
api_key = "{api_key}"
{options}
[auth]
origins = "https://app.example"
expiry_grace = "1s"

[[auth.issuer]]
issuer = "https://id.example"
audience = ["roomcast"]
algorithms = ["ES256"]
jwks_file = "{directory}/jwks.json"
user_prefix = "app-"
roles_claim = "roles"

[[auth.issuer]]
issuer = "https://load.example"
audience = ["roomcast"]
algorithms = ["ES256"]
key_file = "{directory}/load-public.pem"
user_prefix = "load-"

[[role]]
name = "member"
allow = [
    {{ rooms = ["hostile:*"], do = ["join", "publish", "members"] }},
    {{ rooms = ["user:{{user}}"], do = ["join"] }},
    {{ calls = ["echo", "long", "ping"], do = ["call"] }},
]
"""


def limited():
    """Runs in the new process of the node."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    preferred()


class Node:
    """A node and its Redis server. Use it with `with`."""

    def __init__(self, binary, directory, proxy, tls):
        self.binary, self.directory, self.tls = binary, Path(directory), tls
        self.port, self.internal_port, self.redis_port = free_ports(3)
        self.secrets = {name: secrets.token_hex(20) for name in ("redis_password", "cluster_secret", "api_key")}
        for name in ("issuer", "other", "load"):
            tokens.create_key(self.directory / f"{name}.pem")
        (self.directory / "load-public.pem").write_bytes(tokens.public_pem(self.directory / "load.pem"))
        (self.directory / "jwks.json").write_text(json.dumps({"keys": [tokens.jwk(self.directory / "issuer.pem")]}))
        options = [f"{name} = {value}" for name, value in OPTIONS.items()]
        if tls:
            not_ca = ("-addext", "basicConstraints=critical,CA:FALSE")
            certificate = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", *not_ca, "-days", "2", "-nodes")
            new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
            files = ("-keyout", self.directory / "tls.key", "-out", self.directory / "tls.pem")
            tokens.openssl("req", "-x509", *new_key, *certificate, *files)
            options += [f'tls_cert = "{self.directory}/tls.pem"', f'tls_key = "{self.directory}/tls.key"']
        text = CONFIG.format(**vars(self), **self.secrets, proxy=proxy, options="\n".join(options))
        (self.directory / "node.toml").write_text(text)
        (self.directory / "redis.conf").write_text(
            f"port {self.redis_port}\nbind 127.0.0.1\nsave ''\nrequirepass {self.secrets['redis_password']}\n"
        )
        self.log = self.directory / "node.log"

    def __enter__(self):
        configuration = self.directory / "redis.conf"
        self.redis = subprocess.Popen(["redis-server", configuration], stdout=subprocess.DEVNULL, preexec_fn=preferred)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", self.directory / "node.toml"],
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")},
                preexec_fn=limited,
            )
        ends = time.monotonic() + START_DEADLINE
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > ends:
                self.__exit__()
                raise SystemExit(f"the node does not become ready:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        for process in (self.process, self.redis):
            process.kill()
            process.wait()

    def url(self):
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}/socket"

    def request(self, method, path, body=None):
        """The status and the body of a response of the internal listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.internal_port, timeout=10)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.secrets['api_key']}"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def is_ready(self):
        try:
            return self.request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def metrics(self):
        """Values by name and labels, such as `roomcast_limits_reached_total{limit="calls"}`."""
        text = self.request("GET", "/metrics")[1]
        return {name: float(value) for name, value in re.findall(r"^([a-z]\S*) (\S+)$", text, re.MULTILINE)}

    def peak_memory(self):
        """The largest resident memory of the process so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * KIB

    def stop(self):
        """Ends the node in order, so that its log is complete, and returns whether it ended by itself."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60) == 0
        except subprocess.TimeoutExpired:
            return False
