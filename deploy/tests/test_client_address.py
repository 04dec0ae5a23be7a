"""Nodes behind a load balancer know where their clients are, and believe nobody else about it.

ROOMCAST_BIN names the node, or deploy/local builds one.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "crates/node/tests/protocol"))

from client import Client  # noqa: E402

NET = "127.84.0"
ADDRESS = f"{NET}.77"


@pytest.mark.parametrize("proxy", ["haproxy", "nginx"])
def test_a_client_is_where_it_is_and_not_where_it_says(local, proxy):
    outcome = local("up", "--nodes", "1", "--proxy", proxy, "--prometheus", "no")
    assert outcome.returncode == 0, outcome.stderr
    client = Client(8000, host=f"{NET}.254", source=ADDRESS, X_Forwarded_For="6.6.6.6")
    ip, port = client.socket.getsockname()
    assert ip == ADDRESS
    assert client.call("myip") == f"{ip}:{port}".encode()
