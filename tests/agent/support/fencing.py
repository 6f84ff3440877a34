"""Attempts that are stopped in the middle of a write instead of killed, and go on when a newer one has begun."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess

from tests.agent.support.crash_matrix import WRITES, Run, send
from tests.agent.support.faulty_proxy import Request


@dataclass
class Fencing(Run):
    """A run whose attempts become zombies, with uploads in flight."""

    pauses: tuple[tuple[int, float], ...] = ()
    """Write at which an attempt is stopped -> seconds until it goes on, with that write still in flight."""
    zombies: list[ForkServerProcess] = field(default_factory=list)
    _stopped: bool = False

    def _rule(self, node: int) -> Callable[[Request], str]:
        lengths = dict(self.pauses)

        def rule(request: Request) -> str:
            if request.method not in WRITES or self._over:
                return "pass"
            with self._lock:
                self.writes += 1
                seconds = lengths.get(self.writes)
                if seconds is None or self._stopped:
                    return "pass"
                stopped = [*self.current.values(), *self.trainers.values()]
                send(signal.SIGSTOP, stopped)
                self._stopped = True
            time.sleep(seconds)
            send(signal.SIGCONT, stopped)
            return "pass"

        return rule

    def _turn(self) -> bool:
        if self._stopped:
            self.zombies += self.current.values()
            self._forsaken += self.trainers.values()
            self.current, self.trainers = {}, {}
            self.attempt += 1
            self.passes = 0
            self._begin_attempt()
            self._stopped = False
        return super()._turn()

    _forsaken: list[ForkServerProcess] = field(default_factory=list)

    def zombie_ends(self) -> list[int | None]:
        """Exit codes of the older attempts' agents, once they have seen that they are fenced, or have been ended."""
        send(signal.SIGKILL, self._forsaken)
        for process in self.zombies:
            process.join(60)
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
        return [process.exitcode for process in self.zombies]
