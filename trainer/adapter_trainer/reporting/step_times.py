"""Where the time of a step goes: parts that follow each other without a gap, by whichever clock can tell, and no waiting."""

import time
from collections import deque
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Part = Literal["data", "encode", "forward", "backward", "save", "optimizer", "other"]
PARTS: tuple[Part, ...] = ("data", "encode", "forward", "backward", "save", "optimizer", "other")


class Clock(Protocol):
    """Tells the time between two marks."""

    def mark(self) -> Any:
        """A mark for now."""

    def between(self, start: Any, end: Any) -> float | None:
        """Seconds from one mark to another; None while that is not known yet."""


class HostClock:
    """The host's time: right where computing happens in the call that asks for it."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def between(self, start: float, end: float) -> float:
        """The difference."""
        return end - start


class DeviceClock:
    """The time of a CUDA device, which computes long after it was asked to.

    A mark is an event that the device passes between two kernels. So a batch that was read while the device was busy
    took no time, and one that it stood idle for took what it waited.
    """

    def mark(self) -> torch.cuda.Event:
        """An event at the end of what the device has been asked for."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float | None:
        """The device's own measure, once it has passed both; asking does not wait."""
        return float(start.elapsed_time(end)) / 1000 if end.query() else None


def clock_of(device: torch.device) -> Clock:
    """The clock for training on a device."""
    return DeviceClock() if device.type == "cuda" else HostClock()


class StepTimes:
    """Seconds by part since the last `restart`. What ends is named when it ends; all of the time is some part's.

    `encode` is first stage, text and image encoders; `backward` includes waiting for other processes' gradients;
    `save` is waiting for the copy of what is being saved; `optimizer` includes clipping and the average of the weights;
    `other` is whatever is between two steps.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_in_step = False
        self._open: deque[tuple[Part, Any, Any]] = deque()
        """Parts whose length the clock does not know yet, oldest first."""
        self.restart()

    def restart(self) -> None:
        """Counts from now on."""
        self._open.clear()
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._last = self._clock.mark()

    def begin_step(self) -> None:
        """A step begins."""
        self._is_in_step = True
        self.end("other")

    def end(self, part: Part) -> None:
        """What went on since the last call was this part."""
        now = self._clock.mark()
        self._open.append((part, self._last, now))
        self._last = now
        self._settle()

    def end_step(self) -> None:
        """The step ends, and with it the optimizer's part."""
        self.end("optimizer")
        self._is_in_step = False

    def seconds(self) -> dict[Part, float]:
        """By part, as far as it is known: after a read of the device, all that was before it."""
        self._settle()
        return dict(self._seconds)

    def watch(self, encoder: nn.Module) -> None:
        """Counts what this module computes in a step as `encode`."""

        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001 - torch's own signature
            if self._is_in_step:
                self.end("forward")

        def after(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
            if self._is_in_step:
                self.end("encode")

        encoder.register_forward_pre_hook(before)
        encoder.register_forward_hook(after)

    def _settle(self) -> None:
        while self._open:
            part, start, end = self._open[0]
            seconds = self._clock.between(start, end)
            if seconds is None:
                return
            self._seconds[part] += seconds
            self._open.popleft()
