"""The processes of a run: who writes what, and how they agree."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")

POLL_SECONDS = 0.05


@dataclass
class Processes:
    """This process among those of the run. Agreement goes over gloo, so that it never occupies a GPU."""

    rank: int = 0
    world_size: int = 1
    is_leader: bool = True
    """Whether this process finishes the output folder that it writes to: one process for each such folder."""
    sharing: tuple[int, ...] = (0,)
    """Ranks that write into the same output folder, this one among them."""
    group: Any = field(default=None, repr=False)
    patient: Any = field(default=None, repr=False)
    """The same processes in a group whose operations have no limit of time."""
    pass_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Of this start of all processes, the same for each: torchrun starts them anew in place when one has crashed, and what two
    passes have computed of the same step is not the same."""

    @classmethod
    def of_this_run(cls, output: Path) -> "Processes":
        """Finds out who this process is. Collective: every process of the run calls it.

        Nodes may share the output folder (a network volume) or have one each, and nobody has to say which: rank 0
        leaves a token, and the processes that find it share its folder.
        """
        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            return cls()
        group = distributed.new_group(backend="gloo")
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        patient = distributed.new_group(backend="gloo", timeout=timedelta(days=365))
        processes = cls(rank, world_size, group=group, patient=patient)
        processes.pass_id = processes.gather(processes.pass_id)[0]
        name = f".folder-{processes.pass_id}"
        mine = output / f"{name}-{rank}"
        mine.touch()
        processes.barrier()
        sharing = [other for other in range(world_size) if (output / f"{name}-{other}").exists()]
        processes.barrier()
        mine.unlink()
        processes.sharing, processes.is_leader = tuple(sharing), rank == min(sharing)
        return processes

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes what exists once."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of ranks."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.group is not None:
            distributed.barrier(group=self.group)

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Waits for all processes, however long some of them take; calls `meanwhile` often, which may raise."""
        if self.patient is None:
            return
        work = distributed.barrier(group=self.patient, async_op=True)
        while not work.is_completed():
            meanwhile()
            time.sleep(POLL_SECONDS)
        work.wait()

    def broadcast(self, tensors: dict[str, Tensor] | None, source: int) -> dict[str, Tensor]:
        """Rank `source`'s CPU tensors on every rank; the others pass None."""
        if self.group is None:
            return tensors or {}
        shapes = None if tensors is None else {name: (value.shape, value.dtype) for name, value in tensors.items()}
        agreed = self.gather(shapes)[source] or {}
        received = {}
        for name, (shape, dtype) in agreed.items():
            tensor = torch.empty(shape, dtype=dtype) if tensors is None else tensors[name].contiguous()
            distributed.broadcast(tensor, source, group=self.group)
            received[name] = tensor
        return received

    def first_error(self, error: Exception | None) -> Exception | None:
        """The error of the lowest rank that has one: so that all ranks fail alike instead of waiting for one."""
        return next((found for found in self.gather(error) if found is not None), None)
