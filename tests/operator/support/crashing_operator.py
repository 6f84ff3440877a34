"""The operator, ended as by SIGKILL before or after one of its writes: `python -m tests.operator.support.crashing_operator`.

CRASH_AT: number of the write, from 1, leases and Events not counted; 0: never. CRASH_WHEN: before or after.
"""

import os
import sys

from adapter_operator import __main__ as program
from adapter_operator.cluster import Cluster

AT, WHEN = int(os.environ.get("CRASH_AT", "0")), os.environ.get("CRASH_WHEN", "before")
CODE = 137
_UNCOUNTED = frozenset({"Lease", "Event"})


class CrashingCluster(Cluster):
    """Ends the process at one write."""

    writes = 0

    async def _send(
        self, verb: str, kind: str, path: str, body: bytes | None, content_type: str, most: int | None = None
    ) -> bytes:
        counts = verb != "GET" and kind not in _UNCOUNTED
        if counts:
            CrashingCluster.writes += 1
        number = CrashingCluster.writes
        if counts and (number, WHEN) == (AT, "before"):
            os._exit(CODE)
        try:
            return await super()._send(verb, kind, path, body, content_type, most)
        finally:
            if counts and (number, WHEN) == (AT, "after"):
                os._exit(CODE)


def main() -> int:
    """Runs the program with the cluster that crashes."""
    vars(program)["Cluster"] = CrashingCluster
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
