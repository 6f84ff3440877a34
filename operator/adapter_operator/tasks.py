"""Tasks that run side by side and end together."""

import asyncio


async def first(*awaitables: object) -> None:
    """Waits for the first to end, raises what it raised, and cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]  # type: ignore[call-overload]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
