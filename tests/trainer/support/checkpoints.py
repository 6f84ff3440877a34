"""Checkpoints that a saver of its own writes, without a training run."""

from pathlib import Path

import torch

from adapter_api.layout import STATE_FILE
from adapter_api.retention import Policy
from adapter_trainer.checkpoint.arena import Contents
from adapter_trainer.checkpoint.saver import Saver
from adapter_trainer.distributed.processes import Processes

CPU = torch.device("cpu")
SMALL = Contents(tensors={"model/unet.safetensors": {"weight": torch.ones(10)}}, blobs={STATE_FILE: b"{}"})


def saver_of(output: Path, keep_last: int | None = None) -> Saver:
    output.mkdir(parents=True, exist_ok=True)
    return Saver(output, Processes(), CPU, Policy(last=keep_last), lambda _: None)


def saved(output: Path, step: int, contents: Contents = SMALL, keep_last: int | None = None) -> Path:
    """The folder of a checkpoint that a saver of its own has written."""
    saver = saver_of(output, keep_last)
    saver.begin(step, contents)
    try:
        assert saver.finish() == step
    finally:
        saver.close()
    return output / f"checkpoint-{step}"
