"""What lists have shown of jobs and their watch has not told: how a watch that has fallen silent is found out."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adapter_operator.names import Key
from adapter_operator.observe.cache import Cache

Plain = dict[str, Any]


@dataclass
class Untold:
    """kopf may keep a watch that tells nothing, or watch nothing at all; lists go on.

    Args:
        limit: Seconds that a list is ahead of a watch that is well.
        clock: Seconds that only grow.
    """

    limit: float
    clock: Callable[[], float] = time.monotonic
    is_overdue: bool = False
    """Whether two lists, `limit` seconds apart, have shown what the watch had told at neither of them."""
    _since: dict[Key, tuple[int, float]] = field(default_factory=dict)
    """The version that a list has shown before the watch, and when."""

    def listed(self, raw: Plain, known: Cache) -> None:
        """A list shows a job; `known` is what was known before."""
        key, version = _of(raw)
        job = known.job(key)
        if job is None or job.resource_version < version:
            self._since.setdefault(key, (version, self.clock()))

    def has_listed(self, found: set[Key]) -> None:
        """A list has ended, with these jobs: what has been deleted need not be told any more."""
        self._since = {key: shown for key, shown in self._since.items() if key in found}
        self.is_overdue = self.age() > self.limit

    def told(self, raw: Plain) -> None:
        """The watch tells of a job."""
        key, version = _of(raw)
        if key in self._since and version >= self._since[key][0]:
            del self._since[key]

    def age(self) -> float:
        """Seconds since a list showed what the watch has not told; 0: it has told everything."""
        return max((self.clock() - since for _, since in self._since.values()), default=0.0)


def _of(raw: Plain) -> tuple[Key, int]:
    metadata = raw["metadata"]
    return (metadata["namespace"], metadata["name"]), int(metadata["resourceVersion"])
