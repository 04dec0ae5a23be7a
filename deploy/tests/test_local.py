"""deploy/local tells what it can't do, and touches nothing that it did not make."""

import socket

import pytest

NET = "127.85.0"


def up_alone(local, **variables):
    return local("up", "--nodes", "1", "--proxy", "none", "--prometheus", "no", **variables)


def test_who_listens_already_is_not_taken_for_a_node(local):
    with socket.create_server((f"{NET}.1", 3001)):
        outcome = up_alone(local)
    assert outcome.returncode == 1 and f"{NET}.1:3001 is in use" in outcome.stderr


def test_the_last_words_of_a_process_that_ends_are_told(local):
    outcome = up_alone(local, ROOMCAST_MAX_ROOMS="many")
    assert outcome.returncode == 1 and "node1 has ended: roomcast: ROOMCAST_MAX_ROOMS" in outcome.stderr


def test_a_second_cluster_needs_a_state_of_its_own(local):
    assert up_alone(local).returncode == 0
    outcome = up_alone(local)
    assert outcome.returncode == 1 and "a cluster is already running" in outcome.stderr


def test_a_cluster_can_authenticate_its_clients(local, tmp_path):
    secret, config = tmp_path / "secret", tmp_path / "auth.toml"
    secret.write_text("0123456789abcdef" * 2)
    config.write_text(
        "[[auth.issuer]]\nissuer = 'https://load.example'\naudience = ['roomcast']\nalgorithms = ['HS256']\n"
        f"secret_file = '{secret}'\n"
    )
    assert up_alone(local, ROOMCAST_CONFIG=str(config)).returncode == 0
    connect = ["load", "connect", "--quiet", "--connections=5", "--duration=1s", "--timeout=1s"]
    outcome = local(*connect)
    assert outcome.returncode == 2 and "HTTP 401" in outcome.stderr
    token = ["--token-key", str(secret), "--token-algorithm=HS256", "--token-issuer=https://load.example"]
    assert local(*connect, *token, "--token-audience=roomcast").returncode == 0


@pytest.mark.parametrize("command", ["load", "roll"])
def test_what_needs_a_cluster_says_so(local, command):
    outcome = local(command, "chat")
    assert outcome.returncode == 1 and "no cluster is running" in outcome.stderr


def test_a_folder_of_somebody_else_is_left_alone(local, tmp_path):
    (tmp_path / "diary").touch()
    outcome = up_alone(local, ROOMCAST_LOCAL_STATE=str(tmp_path))
    assert outcome.returncode == 1 and (tmp_path / "diary").exists()
