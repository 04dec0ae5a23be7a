"""Ports for the servers of tests."""

import random
import socket


def free_ports(count):
    """Ports below the range from which systems take those of outgoing connections, so that none is lost to one."""
    ports = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in ports:
            ports.append(port)
    return ports
