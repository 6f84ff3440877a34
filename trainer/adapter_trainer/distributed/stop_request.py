"""Requests to stop: noticed on any rank, obeyed by all ranks at the same step boundary."""

import signal
from types import FrameType

import torch
from torch import distributed

from adapter_trainer.distributed.processes import Processes

_FAILED = 2


class Interrupted(Exception):  # noqa: N818 - it reads as the fact that it states
    """The run is to stop; what was measured or drawn so far is nothing."""


class StopRequest:
    """SIGTERM or SIGINT, agreed on by all ranks.

    A signal reaches ranks at different steps, and one that stopped alone would leave the others in a collective for
    ever. So each step carries a maximum over all ranks' flags; it runs beside the step and costs no wait.
    """

    def __init__(self, processes: Processes) -> None:
        self.signal_number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        self.group = processes.group
        self.flag = torch.zeros(1, dtype=torch.int32)
        self.work: distributed.Work | None = None
        self.has_failure = False
        """Whether some rank said, at the begin of the last step, that it cannot go on."""

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        self.signal_number = number

    def begin_step(self, *, failed: bool) -> None:
        """Starts to compare flags; the answer is ready when the step is."""
        self.has_failure = failed
        if self.group is not None:
            self.flag.fill_(_FAILED if failed else 1 if self.signal_number else 0)
            self.work = distributed.all_reduce(self.flag, distributed.ReduceOp.MAX, group=self.group, async_op=True)

    def is_asked(self) -> bool:
        """Whether some rank has been asked to stop by now; collective, and waits for all of them. Not within a step."""
        if self.group is None:
            return self.signal_number != 0
        asked = torch.tensor([self.signal_number != 0], dtype=torch.int32)
        distributed.all_reduce(asked, distributed.ReduceOp.MAX, group=self.group)
        return bool(asked.item())

    def end_step(self) -> bool:
        """Whether all ranks stop after this step."""
        if self.work is None:
            return self.signal_number != 0
        self.work.wait()
        self.has_failure = self.flag.item() == _FAILED
        return bool(self.flag.item())
