"""What the tests of deploy/local share."""

import os
import subprocess
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[1] / "local"


@pytest.fixture
def local(request, tmp_path):
    """deploy/local in the loopback network that the test's file names; what it started is ended with the test."""
    # With a space: a checkout may lie anywhere.
    environment = os.environ | {"ROOMCAST_LOCAL_NET": request.module.NET, "ROOMCAST_LOCAL_STATE": str(tmp_path / "its state")}

    def run(*arguments, **variables):
        return subprocess.run([LOCAL, *arguments], env=environment | variables, stderr=subprocess.PIPE, text=True)

    yield run
    assert run("down").returncode == 0
