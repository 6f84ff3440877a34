"""What a training process does before it touches any folder: it imports its libraries, and waits for the word to begin."""

import atexit
import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from adapter_api.launch import BEGIN_VARIABLE

POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_torchrun(environment: Mapping[str, str] = os.environ) -> None:
    """Sees to it that this process is killed when the torchrun that started it is: nobody would restart or end it. Linux.

    A process that was started without torchrun outlives the shell that it came from.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in environment:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def await_word(environment: Mapping[str, str] = os.environ) -> None:
    """Returns once the file that the environment names exists; at once where it names none.

    Importing takes longer than all else before the first step, and needs no folder: it is done meanwhile.
    """
    name = environment.get(BEGIN_VARIABLE)
    if name is None or Path(name).exists():
        return
    import_libraries()
    while not Path(name).exists():
        time.sleep(POLL_SECONDS)


def import_libraries() -> None:
    """Imports all that training needs."""
    with uncollected():
        import adapter_trainer.training.setup  # noqa: F401 - it brings everything else


@contextmanager
def uncollected() -> Iterator[None]:
    """Within the block nothing is garbage-collected, and what it has made is left out of every later collection.

    Modules and classes live as long as the process: looking through hundreds of thousands of objects again and again
    takes a fifth of the time of importing torch and diffusers.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        # Extension modules of triton count objects at the end, and complain of what was never collected.
        atexit.unregister(gc.unfreeze)
        atexit.register(gc.unfreeze)
