"""A watch that tells less than lists show is found out, and one that is only slower is not."""

from dataclasses import dataclass
from typing import Any

from adapter_operator.names import Key
from adapter_operator.observe.cache import Cache
from adapter_operator.observe.untold import Untold

LIMIT = 100.0


@dataclass
class Told:
    """Lists and a watch of one cluster."""

    now: float = 0.0

    def __post_init__(self) -> None:
        self.cache, self.untold = Cache(), Untold(LIMIT, lambda: self.now)

    def list_(self, **versions: int) -> bool:
        """Whether the watch is overdue after a list of these jobs."""
        found: set[Key] = set()
        for name, version in versions.items():
            self.untold.listed(raw(name, version), self.cache)
            found.add(self.cache.put_job(raw(name, version)))
        self.untold.has_listed(found)
        return self.untold.is_overdue

    def watch(self, name: str, version: int) -> None:
        self.untold.told(raw(name, version))
        self.cache.put_job(raw(name, version))


def raw(name: str, version: int) -> dict[str, Any]:
    metadata = {
        "namespace": "n", "name": name, "uid": name, "resourceVersion": str(version), "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    return {"metadata": metadata, "spec": {}}


def test_a_watch_that_tells_nothing_between_two_lists_is_overdue() -> None:
    told = Told()
    assert not told.list_(a=1, b=2)
    told.watch("b", 2)
    told.now = LIMIT + 1
    assert told.list_(a=1, b=2)


def test_a_watch_that_tells_what_lists_have_shown_is_well_however_late_the_next_list_comes() -> None:
    told = Told()
    told.list_(a=1)
    told.watch("a", 3)
    told.now = 10 * LIMIT
    assert not told.list_(a=3)
    assert told.untold.age() == 0


def test_what_a_list_shows_a_moment_before_the_watch_makes_nobody_overdue() -> None:
    told = Told()
    told.list_(a=1)
    told.now = LIMIT - 1
    assert not told.list_(a=1)


def test_a_watch_that_has_told_only_what_was_before_is_overdue() -> None:
    told = Told()
    told.watch("a", 1)
    told.list_(a=5)
    told.watch("a", 1)
    told.now = LIMIT + 1
    assert told.list_(a=5)


def test_a_job_that_is_deleted_untold_need_not_be_told_any_more() -> None:
    told = Told()
    told.list_(a=1)
    told.now = LIMIT + 1
    assert not told.list_()
