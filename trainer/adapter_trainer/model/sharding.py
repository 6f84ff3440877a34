"""FSDP2: parameters, gradients and optimizer state of the trained parts in rows, an equal share on every rank.

Row-wise means dimension 0, cut as `torch.chunk` cuts it: the ranks' rows in the order of ranks are the whole tensor.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from adapter_trainer.model.adapter_model import AdapterModel


def shard(model: AdapterModel, device_type: str, world_size: int) -> None:
    """Gives each rank its rows of what is trained; collective, before the optimizer is made.

    Units that are gathered together: each transformer block, what is left of each block of the UNet, and the rest: small
    trained parts, whose own forward functions are not what the UNet calls. Frozen parts stay whole on every rank.

    Args:
        model: Built alike on every rank, on its device, its UNet trained.
        device_type: `cuda` or `cpu`.
        world_size: Ranks, all of which share the rows.
    """
    mesh = init_device_mesh(device_type, (world_size,))
    frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}
    unet = model.unet
    unet.to(memory_format=torch.contiguous_format)  # rows of weights that lie channels last are not one piece of memory
    for unit in _units(model):
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=frozen)


def _units(model: AdapterModel) -> Iterator[nn.Module]:
    """What is gathered by itself, inner ones first; the rest of the model is one more."""
    unet = model.unet
    yield from (module for module in unet.modules() if isinstance(module, BasicTransformerBlock))
    yield from unet.down_blocks
    if unet.mid_block is not None:
        yield unet.mid_block
    yield from unet.up_blocks


def largest_gathered(model: AdapterModel) -> int:
    """Numbers that a rank holds beside its rows, at most.

    They are the rest, which stays, and two units, as the next one is fetched ahead; and as many gradients as the largest of
    these has parameters, before they are shared out.
    """
    seen: set[nn.Parameter] = set()
    sizes = []
    for unit in (*_units(model), model):
        own = {parameter for parameter in unit.parameters() if parameter.requires_grad} - seen
        seen |= own
        sizes.append(sum(parameter.numel() for parameter in own))
    rest = sizes.pop()
    largest = sorted(sizes)[-2:]
    return rest + sum(largest) + max(rest, *largest)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was called for it."""
    return isinstance(model, FSDPModule)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """All parameters on every rank, as long as the block: ranks then need not compute in step with each other.

    Collective at its beginning. Needs room for the whole model; changes nothing on a model that is not sharded.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    model._get_fsdp_state()._lazy_init()  # noqa: SLF001 - what the first forward pass does, which may not have been yet
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            # The root's parameters are needed for the backward pass soonest: torch keeps them by default.
            unit.set_reshard_after_forward(unit is not model, recurse=False)


def rows_of(tensor: Tensor) -> Tensor:
    """This rank's rows, sharing memory with `tensor`; all of a tensor that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(reference: Tensor | None, full: Tensor) -> Tensor:
    """`full` as `reference` is: sharded with a copy of this rank's rows, or as it is."""
    if not isinstance(reference, DTensor):
        return full
    mesh = reference.device_mesh
    rows = full.chunk(mesh.size())
    rank = mesh.get_local_rank()
    mine = rows[rank] if rank < len(rows) else full[:0]
    return _from_rows(reference, mine.clone().to(rows_of(reference).device), full)


def with_rows(reference: Tensor, rows: Tensor) -> Tensor:
    """This rank's `rows` of a tensor that is sharded as `reference` is."""
    return _from_rows(reference, rows, reference) if isinstance(reference, DTensor) else rows


def _from_rows(reference: DTensor, rows: Tensor, shaped: Tensor) -> DTensor:
    return DTensor.from_local(
        rows,
        reference.device_mesh,
        reference.placements,
        run_check=False,
        shape=shaped.shape,
        stride=torch.empty(shaped.shape, device="meta").stride(),
    )
