"""The process ends when what it knows cannot be true any more, and waits when there is nothing to know yet."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from adapter_operator.clock import ServerClock
from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.leader import ClusterRestored, Leader
from adapter_operator.settings import Settings


@dataclass
class Lists:
    """A cluster without objects, whose lists are of these resourceVersions."""

    versions: list[str]
    faults: list[ClusterError] = field(default_factory=list)
    clock: ServerClock = field(default_factory=ServerClock)

    async def pages(self, kind: str, _namespace: str, _selector: str = "") -> AsyncIterator[tuple[list[Any], str]]:
        yield [], self.versions.pop(0) if kind == "AdapterTrainingJob" else self.versions[0]

    async def probe(self, _kind: str, _namespace: str) -> None:
        if self.faults:
            raise self.faults.pop(0)


def leader(lists: Lists) -> Leader:
    return Leader(cast("Cluster", lists), Settings())


def test_lists_that_get_newer_or_stay_are_taken() -> None:
    async def lead() -> list[str]:
        made = leader(Lists(["9", "9", "10", "11"]))
        return [await made._list() for _ in range(3)]

    assert asyncio.run(lead()) == ["9", "9", "10"]


def test_a_cluster_that_was_restored_to_an_earlier_state_is_met_by_a_new_process() -> None:
    async def lead() -> None:
        made = leader(Lists(["100", "7", "8"]))
        await made._list()
        await made._list()

    with pytest.raises(ClusterRestored, match="resourceVersion 7 after 100"):
        asyncio.run(lead())


def test_a_missing_crd_or_right_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapter_operator.leader.UNSERVED_SECONDS", 0)
    lists = Lists([], [ClusterError(404, "no such kind"), ClusterError(403, "forbidden"), ClusterError(0, "away")])
    asyncio.run(leader(lists)._until_served())
    assert lists.faults == []
