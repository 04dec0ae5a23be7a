"""A bad option ends `roomcast serve` with status 2 and says what is wrong, before anything is bound."""

import socket
import subprocess

import pytest
from client import DEADLINE
from conftest import environment


@pytest.fixture
def serve(binary):
    """Runs `roomcast serve`, which must end by itself, and returns its exit status and its error output."""

    def serve(*options, **variables):
        command = [binary, "serve", "--demo", *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment() | variables)
        return ended.returncode, ended.stderr

    return serve


@pytest.fixture
def occupied():
    """An address in use: a node that binds before it checks its options complains about this one instead."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def names_an_address_form(text):
    return any(word in text.lower() for word in ("address", "ip:port", "host:port", "addr:port", "127.0.0.1:3000"))


def test_a_bad_listen_address_is_named_with_its_option_and_what_is_allowed(serve, occupied):
    status, error = serve("--listen", "nonsense", "--internal-listen", occupied)
    assert status == 2
    assert "listen" in error and "nonsense" in error
    assert names_an_address_form(error), error


def test_a_bad_internal_listen_address_is_named_before_the_public_one_is_bound(serve, occupied):
    status, error = serve("--listen", occupied, "--internal-listen", "nonsense")
    assert status == 2
    assert "internal" in error and "nonsense" in error
    assert "in use" not in error


@pytest.mark.parametrize(
    "option, value",
    [
        ("--max-payload", "plenty"),
        ("--max-payload", "-1"),
        ("--ping-interval", "soon"),
        ("--pong-timeout", "10 parsecs"),
        ("--max-outbound", "many"),
        ("--max-calls", "1.5"),
        ("--drain-delay", "later"),
        ("--drain-duration", "wide"),
        ("--drain-timeout", "never"),
    ],
)
def test_a_bad_value_is_named_with_its_option(serve, occupied, option, value):
    status, error = serve("--listen", occupied, "--internal-listen", occupied, f"{option}={value}")
    assert status == 2
    assert option.strip("-").replace("-", "_") in error.replace("-", "_")
    assert value in error
    assert "in use" not in error


def test_an_unknown_flag_is_named(serve, occupied):
    status, error = serve("--listen", occupied, "--no-such-flag")
    assert status == 2
    assert "--no-such-flag" in error


def test_an_unknown_key_of_the_config_file_is_named(serve, occupied, tmp_path):
    config = tmp_path / "roomcast.toml"
    config.write_text('no_such_key = "x"\n')
    status, error = serve("--listen", occupied, "--config", str(config))
    assert status == 2
    assert "no_such_key" in error


def test_a_bad_value_in_the_config_file_is_named_with_its_key(serve, tmp_path):
    config = tmp_path / "roomcast.toml"
    config.write_text('listen = "nonsense"\n')
    status, error = serve("--config", str(config))
    assert status == 2
    assert "listen" in error and "nonsense" in error


def test_a_config_file_that_is_not_toml_is_refused_and_named(serve, tmp_path):
    config = tmp_path / "roomcast.toml"
    config.write_text("listen = = 1\n")
    status, error = serve("--config", str(config))
    assert status == 2
    assert "roomcast.toml" in error


def test_a_missing_config_file_is_refused_and_named(serve, tmp_path):
    status, error = serve("--config", str(tmp_path / "missing.toml"))
    assert status == 2
    assert "missing.toml" in error


def test_a_bad_environment_variable_is_named(serve):
    status, error = serve(ROOMCAST_LISTEN="nonsense")
    assert status == 2
    assert "listen" in error.lower() and "nonsense" in error
