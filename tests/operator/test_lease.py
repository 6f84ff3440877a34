"""A process that ends leaves its lease free, whatever it was doing with it, and never longer than it takes to be sure."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from adapter_operator.cluster import Cluster, ClusterError
from adapter_operator.lease import Lease

Plain = dict[str, Any]
KEY = ("default", "the-lease")


@dataclass
class Slow:
    """A server with one lease, which does what it is asked only when the test lets it."""

    found: Plain | None = None
    may_write: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a write has come."""
    writes: int = 0

    async def get(self, _kind: str, _key: tuple[str, str]) -> Plain:
        if self.found is None:
            raise ClusterError(404, "none")
        return {**self.found, "spec": dict(self.found["spec"])}

    async def create(self, lease: Plain) -> Plain:
        return await self._write(lease)

    async def replace(self, lease: Plain) -> Plain:
        return await self._write(lease)

    async def _write(self, lease: Plain) -> Plain:
        self.asked.set()
        await self.may_write.wait()
        version = (self.found or {"metadata": {}})["metadata"].get("resourceVersion", "0")
        if lease["metadata"].get("resourceVersion", "0") != version:
            raise ClusterError(409, "changed")
        self.writes += 1
        self.found = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(int(version) + 1)}}
        return self.found

    @property
    def holder(self) -> str:
        return str((self.found or {"spec": {}})["spec"].get("holderIdentity", ""))


def lease_of(server: Slow, seconds: int = 15) -> Lease:
    return Lease(cast("Cluster", server), KEY, "me", seconds)


async def interrupted(server: Slow, task: "asyncio.Task[None]") -> None:
    """The task is cancelled while its write is under way."""
    server.asked.clear()
    await server.asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_who_ends_while_the_lease_is_being_taken_leaves_it_free() -> None:
    async def lead() -> Slow:
        server = Slow()
        lease = lease_of(server)
        await interrupted(server, asyncio.create_task(lease.acquire()))
        assert server.writes == 0, "the server has not done it yet"
        releasing = asyncio.create_task(lease.release())
        await asyncio.sleep(0)
        server.may_write.set()
        await releasing
        return server

    server = asyncio.run(lead())
    assert (server.holder, server.writes) == ("", 2)


def test_who_ends_while_the_lease_is_being_renewed_leaves_it_free() -> None:
    async def lead() -> Slow:
        server = Slow()
        lease = lease_of(server, seconds=1)
        server.may_write.set()
        await lease.acquire()
        assert server.holder == "me"
        server.may_write.clear()
        await interrupted(server, asyncio.create_task(lease.keep()))
        releasing = asyncio.create_task(lease.release())
        await asyncio.sleep(0)
        server.may_write.set()
        await releasing
        return server

    assert asyncio.run(lead()).holder == ""


def test_who_waits_for_anothers_lease_leaves_it_alone() -> None:
    async def lead() -> Slow:
        server = Slow({"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "other"}})
        waiting = asyncio.create_task((lease := lease_of(server)).acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        await lease.release()
        return server

    server = asyncio.run(lead())
    assert (server.holder, server.writes) == ("other", 0)


def test_a_server_that_does_not_answer_holds_up_nobody_who_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapter_operator.lease.RELEASE_SECONDS", 0.01)

    async def lead() -> None:
        server = Slow()
        lease = lease_of(server)
        await interrupted(server, asyncio.create_task(lease.acquire()))
        await lease.release()
        assert len(asyncio.all_tasks()) == 2, "its write, which is being cancelled, and this"
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(lead())
    assert "could not be released" in caplog.text
