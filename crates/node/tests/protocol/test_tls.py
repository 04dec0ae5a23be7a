"""With a certificate, the public listener speaks TLS and the protocol over it."""

import resource
import socket
import ssl
import subprocess

import pytest
from client import DEADLINE, Client, Notify, wait_until
from conftest import environment


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1"]
    subprocess.run([*command, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def node(start_node, certificate):
    cert, key = certificate
    return start_node("--tls-cert", cert, "--tls-key", key, "--max-outbound", "64MiB")


@pytest.fixture
def client(node, certificate):
    context = ssl.create_default_context(cafile=certificate[0])
    client = Client(node.port, lambda plain: context.wrap_socket(plain, server_hostname="localhost"))
    yield client
    client.close_socket()


def test_calls_and_notifications_travel_over_tls(client):
    assert client.call("uppercase", b"over tls") == b"OVER TLS"
    client.send(Notify("ping", b"hello"))
    assert client.recv() == Notify("pong", b"hello")


def test_large_payloads_travel_whole_over_tls(client):
    payload = bytes(range(256)) * 4096
    assert client.call("echo", payload) == payload


def test_a_client_without_tls_is_turned_away_and_harms_nobody(client, node):
    with socket.create_connection(("127.0.0.1", node.port), DEADLINE) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(4096).startswith(b"HTTP")
    assert client.call("echo", b"unharmed") == b"unharmed"


def test_clients_that_stall_in_their_handshakes_make_room_for_others(start_node, certificate):
    """1,024 handshakes are under way at once. Each socket sends the beginning of a record of TLS, and no more."""
    cert, key = certificate
    node = start_node("--tls-cert", cert, "--tls-key", key)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    stalled = []
    try:
        for _ in range(1100):
            stalled.append(socket.create_connection(("127.0.0.1", node.port), DEADLINE))
            stalled[-1].sendall(b"\x16\x03\x01")
        wait_until(lambda: metric(node, "roomcast_tls_handshakes_displaced_total") > 0, "a stalled handshake is displaced")
        assert metric(node, "roomcast_tls_handshakes") <= 1024
        context = ssl.create_default_context(cafile=cert)
        client = Client(node.port, lambda plain: context.wrap_socket(plain, server_hostname="localhost"))
        assert client.call("echo", b"admitted") == b"admitted"
        client.close_socket()
    finally:
        for connection in stalled:
            connection.close()


def metric(node, name):
    lines = node.get("/metrics")[1].decode().splitlines()
    return float(next(line.split(" ")[1] for line in lines if line.startswith(f"{name} ")))


@pytest.mark.parametrize("options", [("--tls-cert", "CERT"), ("--tls-key", "KEY"), ("--tls-cert", "KEY", "--tls-key", "KEY")])
def test_a_certificate_and_its_key_are_checked_before_anything_is_bound(binary, certificate, options):
    paths = {"CERT": certificate[0], "KEY": certificate[1]}
    command = [binary, "serve", *(paths.get(option, option) for option in options)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment())
    assert ended.returncode == 2
    assert "--tls-" in ended.stderr and ("key" in ended.stderr or "certificate" in ended.stderr)
