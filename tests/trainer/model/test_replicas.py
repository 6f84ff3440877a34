"""Ranks begin with the same weights, without rank 0 sending all of its own."""

import multiprocessing
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import base_digests, replicas
from adapter_trainer.model.adapter_model import AdapterModel
from tests.trainer.support import runs, tiny

RANKS = 2


def began(rank: int, folder: Path, given: tiny.Settings) -> None:
    """One rank: makes a model alike, wraps it, and leaves what came of it in `folder`."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    model = AdapterModel.of(tiny.configuration(given))
    processes = Processes.of_this_run(folder)
    sent: list[str] = []
    send = processes.broadcast

    def broadcast(tensors: dict[str, torch.Tensor] | None, source: int) -> dict[str, torch.Tensor]:
        received = send(tensors, source)
        sent.extend(received)
        return received

    processes.broadcast = broadcast  # type: ignore[method-assign]
    refused = ""
    try:
        replicas.make_alike(model, base_digests.digests((*model.parameters(), *model.buffers())), processes)
    except InvalidConfig as error:
        refused = str(error)
    alike = {name: value.clone() for name, value in model.state_dict().items()}
    if rank and not refused:
        torch.nn.init.constant_(model.unet.conv_in.weight, rank)
    wrapped = None if refused else replicas.with_shared_gradients(model, torch.device("cpu"), some_unused=False)
    own = None if wrapped is None else model.unet.conv_in.weight.detach()
    torch.save({"refused": refused, "sent": sent, "alike": alike, "wrapped": own}, folder / f"rank-{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def all_begin(folder: Path, given: list[tiny.Settings]) -> list[dict[str, Any]]:
    """What each rank, with settings of its own, came to."""
    forks = multiprocessing.get_context("forkserver")
    ranks = [forks.Process(target=began, args=(rank, folder, each)) for rank, each in enumerate(given)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(runs.PATIENCE)
    assert [process.exitcode for process in ranks] == [0] * len(given)
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(len(given))]


def stored(folder: Path, seed: int) -> Path:
    """A folder with a UNet of this seed."""
    unet = AdapterModel.of(tiny.configuration(tiny.settings(changes={"seed": seed}))).unet
    unet.save_pretrained(folder)
    return folder


def reads(folder: Path) -> tiny.Settings:
    return tiny.settings(changes={"model": {"params": {"unet_config": {"pretrained": str(folder), "train": False}}}})


def test_ranks_that_agree_send_nothing(tmp_path: Path) -> None:
    first, second = all_begin(tmp_path, [tiny.settings()] * RANKS)
    assert (first["sent"], second["sent"]) == ([], [])
    assert torch.equal(second["wrapped"], torch.ones_like(second["wrapped"])), "wrapping has sent weights"


def test_what_a_rank_has_built_differently_becomes_what_rank_0_has(tmp_path: Path) -> None:
    first, second = all_begin(tmp_path, [tiny.settings(changes={"seed": seed}) for seed in (1, 2)])
    assert "unet.conv_in.weight" in first["sent"]
    assert "unet.conv_norm_out.weight" not in first["sent"], "ones are ones on every rank"
    assert all(torch.equal(second["alike"][name], value) for name, value in first["alike"].items())


def test_ranks_that_loaded_other_files_than_rank_0_end_the_run_on_every_rank(tmp_path: Path) -> None:
    folders = [stored(tmp_path / f"unet-{seed}", seed) for seed in (1, 2)]
    ends = all_begin(tmp_path, [reads(folder) for folder in folders])
    for end, folder in zip(ends, folders, strict=True):
        assert end["refused"] == (
            f"unet: {folder} gave rank 1 other weights than rank 0; name a commit as its `revision`, or give every node the "
            "same files"
        )


def test_equal_files_in_different_folders_are_no_difference(tmp_path: Path) -> None:
    folders = [stored(tmp_path / name, 1) for name in ("here", "there")]
    assert [end["refused"] for end in all_begin(tmp_path, [reads(folder) for folder in folders])] == ["", ""]
