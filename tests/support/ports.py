"""TCP ports that are free on the loopback interface.

They lie below 32768, where Linux starts to hand out ports by itself: an outgoing connection takes none of them.
"""

import random
import socket
from collections.abc import Sequence

_ALONE = range(5_000, 12_000)
_TOGETHER = range(12_000, 22_000)
"""Ports and ports + 10,000 both stay below 32768."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    return _free(_ALONE, 1, (0,))[0]


def free_ports(count: int, offset: int) -> list[int]:
    """Return ports that are free together with `port + offset`."""
    return _free(_TOGETHER, count, (0, offset))


def _free(among: Sequence[int], count: int, offsets: Sequence[int]) -> list[int]:
    # In a random order, so that test processes that run side by side hardly ever try the same one.
    found: list[int] = []
    for port in random.SystemRandom().sample(among, 500):
        if all(_is_free(port + offset) for offset in offsets):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"fewer than {count} of 500 ports are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
