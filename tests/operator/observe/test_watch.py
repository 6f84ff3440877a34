"""A watch loses nothing: it goes on where it broke, starts anew where the server has forgotten, and never gives up."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.observe.watch import LONGEST_PAUSE_SECONDS, Watch

Plain = dict[str, Any]


def event(kind: str, version: int, name: str = "a") -> Plain:
    return {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": str(version)}}}


class Over(Exception):  # noqa: N818
    """The script has been played."""


@dataclass
class Scripted:
    """Answers each watch with the next part of a script: events, then perhaps a fault."""

    script: list[list[Plain | ClusterError]]
    asked: list[str] = field(default_factory=list)
    """resourceVersions that watches began at; `list` for a list."""
    told: list[tuple[str, str]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    async def changes(self, _kind: str, _namespace: str, _selector: str, version: str) -> AsyncIterator[Plain]:
        self.asked.append(version)
        if not self.script:
            raise Over
        for each in self.script.pop(0):
            if isinstance(each, ClusterError):
                raise each
            yield each

    async def list_anew(self) -> str:
        self.asked.append("list")
        return "100"

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def play(self) -> None:
        """Raises what ends the watch, unless that is the end of the script."""

        def on_event(kind: str, raw: Plain) -> None:
            self.told.append((kind, raw["metadata"]["name"]))

        watch = Watch(cast("Cluster", self), "Pod", "", "", on_event, self.list_anew, self.sleep)
        with pytest.raises(Over):
            asyncio.run(watch.run("5"))


def test_a_watch_that_the_server_ends_goes_on_after_the_last_event() -> None:
    cluster = Scripted([[event("ADDED", 6), event("MODIFIED", 8)], [event("DELETED", 9)]])
    cluster.play()
    assert cluster.asked == ["5", "8", "9"]
    assert cluster.told == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert cluster.pauses == []


def test_a_bookmark_moves_the_place_to_go_on_from_and_tells_nothing() -> None:
    cluster = Scripted([[event("BOOKMARK", 50)]])
    cluster.play()
    assert (cluster.asked, cluster.told) == (["5", "50"], [])


def test_a_connection_that_breaks_is_opened_again_where_it_broke() -> None:
    cluster = Scripted([[event("ADDED", 6), ClusterError(0, "reset")], [event("MODIFIED", 7)]])
    cluster.play()
    assert cluster.asked == ["5", "6", "7"]
    assert len(cluster.pauses) == 1


def test_where_the_server_has_forgotten_everything_is_listed_anew() -> None:
    cluster = Scripted([[event("ADDED", 6), ClusterError(410, "too old")], []])
    cluster.play()
    assert cluster.asked == ["5", "list", "100", "100"]


def test_a_server_that_is_away_is_asked_for_ever_at_growing_and_bounded_distances() -> None:
    away: list[list[Plain | ClusterError]] = [[ClusterError(503, "away")] for _ in range(40)]
    cluster = Scripted(away)
    cluster.play()
    assert len(cluster.pauses) == 40
    assert max(cluster.pauses) <= LONGEST_PAUSE_SECONDS
    assert min(cluster.pauses[10:]) >= LONGEST_PAUSE_SECONDS / 2


def test_a_kind_that_does_not_exist_ends_the_process() -> None:
    cluster = Scripted([[ClusterError(404, "no such kind")]])
    watch = Watch(cast("Cluster", cluster), "Pod", "", "", lambda *_: None, cluster.list_anew, cluster.sleep)
    with pytest.raises(ClusterError, match="no such kind"):
        asyncio.run(watch.run("5"))


def test_a_watch_that_ends_before_it_has_told_anything_is_not_asked_for_again_at_once() -> None:
    scripted = Scripted([[], [event("ADDED", 6)], []])
    scripted.play()
    assert len(scripted.pauses) == 2
    assert min(scripted.pauses) >= 0.5


def test_a_server_that_asks_for_time_gets_it() -> None:
    scripted = Scripted([[ClusterError(429, "busy", retry_after=20.0)]])
    scripted.play()
    assert scripted.pauses == [20.0]
