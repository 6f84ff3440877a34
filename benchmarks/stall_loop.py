"""One rank of a training loop that saves 1 GiB of state in one of these ways: `python -m benchmarks.stall_loop WAY FOLDER URL`.

Started by torchrun, two ranks with gloo. Prints one line of JSON on rank 0: seconds of every step, and how much longer
training stood still for each save than a step without one waits.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import boto3
import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, async_save
from torch.nn.parallel import DistributedDataParallel

from adapter_api.retention import Policy
from adapter_trainer.checkpoint.arena import Contents
from adapter_trainer.checkpoint.saver import Saver
from adapter_trainer.distributed.processes import Processes

WIDTH, LAYERS, BATCH = int(os.environ.get("STALL_WIDTH", "2048")), 21, 24
PARAMETERS = WIDTH**2 * LAYERS
"""With AdamW's two averages, 1 GiB of float32. A smaller width only tries the mechanics."""
WARM_UP, EVERY, SAVES = 3, 20, 3
STEPS = WARM_UP + EVERY * SAVES + EVERY // 2

Save = Callable[[int], None]


class Loop:
    """Forward, backward, AdamW on a stack of linear layers."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
        self.parallel = DistributedDataParallel(self.module, gradient_as_bucket_view=True)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-5, fused=True)
        self.batch = torch.randn(BATCH, WIDTH)
        self.settle: Callable[[], None] = lambda: None
        self.settling = 0.0

    def step(self) -> None:
        """One optimizer step."""
        self.parallel(self.batch).square().mean().backward()
        began = time.perf_counter()
        self.settle()
        self.settling += time.perf_counter() - began
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """As torch.distributed.checkpoint takes it."""
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}


def ours(loop: Loop, folder: Path, url: str) -> tuple[Save, Callable[[], None]]:  # noqa: ARG001 - the agent uploads
    """The trainer's Saver; an agent beside this process uploads what stands in its folder."""
    rank = distributed.get_rank()
    processes = Processes(rank, distributed.get_world_size(), rank == 0, (0, 1), distributed.new_group(backend="gloo"))
    output = folder / "output"
    saver = Saver(output, processes, torch.device("cpu"), Policy(), print)
    loop.settle = saver.settle

    def save(step: int) -> None:
        saver.finish()
        contents = Contents(blobs={f"random-rank-{rank}.safetensors": b"\2\0\0\0\0\0\0\0{}"})
        if rank == 0:
            tensors = dict(loop.module.state_dict())
            for number, state in loop.optimizer.state_dict()["state"].items():
                tensors |= {f"{number}.{name}": value for name, value in state.items()}
            contents.tensors["state.safetensors"] = tensors
            contents.blobs |= {"trainer_state.json": json.dumps({"step": step}).encode(), "metrics.json": b"{}"}
            contents.blobs["versions.json"] = b"{}"
        saver.begin(step, contents)

    def end() -> None:
        saver.finish()
        saver.close()

    return save, end


def in_the_loop(loop: Loop, folder: Path, url: str) -> tuple[Save, Callable[[], None]]:
    """Accelerate's save_state, then boto3's upload_file of every file, before the next step."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    loop.parallel, loop.optimizer = accelerator.prepare(loop.module, loop.optimizer)
    s3 = boto3.client("s3", endpoint_url=url)

    def save(step: int) -> None:
        target = folder / f"checkpoint-{step}"
        accelerator.save_state(str(target))
        if distributed.get_rank() == 0:
            for file in target.rglob("*"):
                if file.is_file():
                    s3.upload_file(str(file), "bucket", f"accelerate/{target.name}/{file.name}")
        distributed.barrier()

    return save, lambda: None


def torch_async(kind: AsyncCheckpointerType) -> Callable[[Loop, Path, str], tuple[Save, Callable[[], None]]]:
    """torch.distributed.checkpoint.async_save; nothing uploads."""

    def contender(loop: Loop, folder: Path, url: str) -> tuple[Save, Callable[[], None]]:  # noqa: ARG001
        group = cast("distributed.ProcessGroup", distributed.new_group(backend="gloo"))
        pending: list[Any] = []

        def wait() -> None:
            while pending:
                pending.pop().result()

        def save(step: int) -> None:
            wait()
            pending.append(
                async_save(
                    loop.state(),
                    checkpoint_id=folder / f"dcp-{step}",
                    process_group=group,
                    async_checkpointer_type=kind,
                )
            )

        return save, wait

    return contender


WAYS: dict[str, Callable[[Loop, Path, str], tuple[Save, Callable[[], None]]]] = {
    "ours": ours,
    "ours-aside": ours,
    "ours-kept": ours,
    "save_state": in_the_loop,
    "async_save-thread": torch_async(AsyncCheckpointerType.THREAD),
    "async_save-process": torch_async(AsyncCheckpointerType.PROCESS),
}


def main(way: str, folder: Path, url: str) -> None:
    """Trains and tells."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    loop = Loop()
    save, end = WAYS[way](loop, folder, url)
    steps: list[float] = []
    stalls: list[float] = []
    for number in range(1, STEPS + 1):
        loop.settling, began = 0.0, time.perf_counter()
        loop.step()
        steps.append(time.perf_counter() - began)
        if stalls and loop.settling:
            stalls[-1] += loop.settling
        if number > WARM_UP and (number - WARM_UP) % EVERY == 0 and len(stalls) < SAVES:
            distributed.barrier()
            began = time.perf_counter()
            save(number)
            stalls.append(time.perf_counter() - began)
            if distributed.get_rank() == 0:
                print(f"{way}: saved at step {number} of {STEPS}", file=sys.stderr, flush=True)
    end()
    if distributed.get_rank() == 0:
        print(json.dumps({"steps": steps, "stalls": stalls}), flush=True)
    distributed.barrier()
    distributed.destroy_process_group()
    shutil.rmtree(folder / "dcp", ignore_errors=True)


if __name__ == "__main__":
    os.environ.setdefault("AWS_REGION", "us-east-1")
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
