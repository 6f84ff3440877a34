"""The work queue: each key by one worker, none lost, failures with growing delays."""

import asyncio
from dataclasses import dataclass

import pytest

from adapter_operator.queue import LONGEST_DELAY_SECONDS, WorkQueue

A, B = ("n", "a"), ("n", "b")


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(clock=clock, jitter=lambda: 1.0)


def taken(queue: WorkQueue) -> tuple[str, str] | None:
    async def one() -> tuple[str, str] | None:
        try:
            return await asyncio.wait_for(queue.take(), 0.01)
        except TimeoutError:
            return None

    return asyncio.run(one())


def test_a_key_that_was_added_twice_is_handed_out_once(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(A)
    assert taken(queue) == A
    assert taken(queue) is None


def test_a_key_is_not_handed_out_while_a_worker_has_it(queue: WorkQueue) -> None:
    queue.add(A)
    assert taken(queue) == A
    queue.add(A)
    queue.add(B)
    assert taken(queue) == B
    assert taken(queue) is None
    queue.done(A)
    assert taken(queue) == A


def test_a_flood_of_one_namespace_holds_up_no_other(queue: WorkQueue) -> None:
    for number in range(10_000):
        queue.add(("flood", f"job-{number}"))
    queue.add(("quiet", "a"))
    queue.add(("quiet", "b"))
    queue.add(("still", "a"))
    first = [taken(queue) for _ in range(6)]
    assert [key for key in first if key is not None and key[0] != "flood"] == [
        ("quiet", "a"),
        ("still", "a"),
        ("quiet", "b"),
    ]
    assert len(queue) == 10_000 - 3


def test_a_key_waits_for_its_time_or_for_what_comes_sooner(queue: WorkQueue, clock: Clock) -> None:
    queue.add(A, 10)
    assert taken(queue) is None
    clock.now += 10
    assert taken(queue) == A
    queue.done(A, 60)
    queue.add(A)
    assert taken(queue) == A


def test_failures_are_tried_again_later_and_later(queue: WorkQueue) -> None:
    delays = [queue.failed(A) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_SECONDS
    queue.done(A)
    assert queue.failed(A) == 0.1


def test_a_server_that_asks_for_time_gets_it(queue: WorkQueue) -> None:
    assert queue.failed(A, at_least=10) == 10


def test_an_event_comes_no_sooner_than_the_server_has_asked_for(queue: WorkQueue, clock: Clock) -> None:
    queue.add(A)
    assert taken(queue) == A
    queue.failed(A, 5.0)
    clock.now += 4
    queue.add(A)
    assert taken(queue) is None
    clock.now += 1
    assert taken(queue) == A
    queue.done(A)
    queue.add(A)
    assert taken(queue) == A


def test_events_do_not_cut_a_backoff_short(queue: WorkQueue, clock: Clock) -> None:
    queue.add(A)
    assert taken(queue) == A
    queue.add(A)  # an event while it was worked on
    queue.failed(A, at_least=5)
    assert taken(queue) is None
    clock.now += 5
    assert taken(queue) == A


def test_depth_and_age_count_what_is_ready(queue: WorkQueue, clock: Clock) -> None:
    queue.add(A)
    queue.add(B, 50)
    clock.now += 7
    assert (len(queue), queue.oldest()) == (1, 7)


def test_many_workers_lose_nothing_and_never_share_a_key() -> None:
    async def run() -> None:
        queue, working, done = WorkQueue(), set(), set()
        keys = [("n", str(number)) for number in range(200)]

        async def worker() -> None:
            while True:
                key = await queue.take()
                assert key not in working
                working.add(key)
                await asyncio.sleep(0)
                working.discard(key)
                done.add(key)
                queue.done(key)

        workers = [asyncio.create_task(worker()) for _ in range(16)]
        for _ in range(3):
            for key in keys:
                queue.add(key)
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            while done != set(keys) or len(queue):  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("steps", range(6))
def test_a_worker_that_is_cancelled_as_a_key_comes_ends(queue: WorkQueue, steps: int) -> None:
    async def lead() -> None:
        queue.add(B, 90)
        worker = asyncio.create_task(queue.take())
        for _ in range(5):
            await asyncio.sleep(0)
        queue.add(A, 60)  # wakes it, to no end
        for _ in range(steps):
            await asyncio.sleep(0)
        worker.cancel()
        await asyncio.wait([worker], timeout=60)
        assert worker.cancelled()

    asyncio.run(lead())
