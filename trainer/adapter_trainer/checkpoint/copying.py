"""Copies tensors into host memory while training goes on; training waits only before it changes what is being copied."""

import threading
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Places in host memory, and what goes there."""


class Copy(Protocol):
    """One copy that has begun."""

    def settle(self) -> None:
        """For the training thread: what is copied may change afterwards."""

    def complete(self) -> None:
        """For the saving thread: returns when everything is in its place."""


class HostCopy:
    """From host memory: done by the saving thread, beside the next forward and backward pass."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._done = threading.Event()

    def settle(self) -> None:
        """Waits for the rest of the copy."""
        self._done.wait()

    @torch.no_grad()
    def complete(self) -> None:
        """Copies."""
        try:
            for place, tensor in self._pairs:
                place.copy_(tensor)
        finally:
            self._done.set()


class DeviceCopy:
    """From a GPU into page-locked memory, on a stream of its own, behind the step that has just been queued."""

    def __init__(self, pairs: Pairs, stream: torch.cuda.Stream) -> None:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for place, tensor in pairs:
                place.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(stream)

    def settle(self) -> None:
        """Lets the GPU wait, not this process."""
        torch.cuda.current_stream().wait_event(self._event)

    def complete(self) -> None:
        """Waits for the GPU."""
        self._event.synchronize()
