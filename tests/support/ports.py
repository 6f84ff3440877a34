"""TCP ports that are free on the loopback interface."""

import random
import socket


def free_port() -> int:
    """Return a port that nobody listens on, as the kernel hands it out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def free_ports(count: int, offset: int) -> list[int]:
    """Return ports that are free together with `port + offset`, below those that the kernel hands out by itself."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(12_000, 22_000), 500):
        try:
            for number in (port, port + offset):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            break
    return found
