"""Training comes first: a process beside it computes where the trainer leaves processor time."""

import os
from contextlib import suppress
from pathlib import Path

NICENESS = 10
"""Added to what a process has: under `nice`, too, it comes after those that train."""


def give_way(process: int | None = None) -> None:
    """Lets a process, by default this one, give way to those that train; what it starts later is as nice.

    Niceness alone does not do that everywhere: where the kernel groups tasks by session (`sched_autogroup_enabled`, so on
    most desktops and virtual machines), it counts only within a session, and sessions share the processors as equals;
    torchrun gives every rank one of its own. So a process that leads a session makes the whole of it nice; a session that
    somebody else leads is not ours to slow down. In a pod neither has an effect: there the containers' CPU requests decide.

    Source: sched(7), "The autogroup feature".
    """
    process = process or os.getpid()
    folder = Path("/proc", str(process))
    niceness = os.getpriority(os.PRIO_PROCESS, process) + NICENESS  # the kernel stops at 19
    for thread in (folder / "task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
    if os.getsid(process) == process:
        with suppress(OSError):  # not every kernel groups by session
            (folder / "autogroup").write_text(str(NICENESS))
