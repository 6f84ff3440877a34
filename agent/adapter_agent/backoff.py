"""How long to wait before the next try: growing, bounded, and jittered so that nodes do not ask in step."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from adapter_agent.errors import WaitedTooLong


def delays(first: float, longest: float, chance: random.Random | None = None) -> Iterator[float]:
    """Endless delays in seconds: each between half and all of a value that doubles from `first` to `longest`."""
    chance = chance or random.Random()
    value = first
    while True:
        yield value * (0.5 + chance.random() / 2)
        value = min(value * 2, longest)


@dataclass
class Deadline:
    """The end of a wait for something that others do, with growing pauses between looks."""

    seconds: float
    awaited: str
    """What is waited for, and what to look at when it does not come."""
    first: float = 0.1
    longest: float = 3.0
    _end: float = field(init=False)
    _delays: Iterator[float] = field(init=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds
        self._delays = delays(self.first, self.longest)

    def pause(self) -> None:
        """Sleeps until the next look.

        Raises:
            WaitedTooLong: the time is over.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise WaitedTooLong(f"waited {self.seconds:.0f} s for {self.awaited}")
        time.sleep(min(next(self._delays), left))
