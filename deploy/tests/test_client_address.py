"""Nodes behind a load balancer know where their clients are, and believe nobody else about it.

ROOMCAST_BIN names the node, or deploy/local builds one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "crates/node/tests/protocol"))

from client import Client  # noqa: E402

NET = "127.84.0"
ADDRESS = f"{NET}.77"


@pytest.fixture(params=["haproxy", "nginx"])
def load_balancer(request, tmp_path):
    environment = os.environ | {"ROOMCAST_LOCAL_NET": NET, "ROOMCAST_LOCAL_STATE": str(tmp_path / "state")}

    def local(*arguments):
        subprocess.run([ROOT / "deploy/local", *arguments], env=environment, check=True)

    try:
        local("up", "--nodes", "1", "--proxy", request.param, "--prometheus", "no")
        yield f"{NET}.254"
    finally:
        local("down")


def test_a_client_is_where_it_is_and_not_where_it_says(load_balancer):
    client = Client(8000, host=load_balancer, source=ADDRESS, X_Forwarded_For="6.6.6.6")
    ip, port = client.socket.getsockname()
    assert ip == ADDRESS
    assert client.call("myip") == f"{ip}:{port}".encode()
