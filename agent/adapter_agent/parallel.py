"""Does the same for many files at once; the first failure stops what has not begun."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Results in the order of `items`; raises what the first failing call raised, after those under way have ended."""
    with ThreadPoolExecutor(threads) as pool:
        pending = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in pending]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
