"""Data parallel training: every rank's model is a replica of rank 0's, made alike at the start and kept so by shared gradients.

DistributedDataParallel would make them alike by sending all of rank 0's weights, SDXL's frozen ones too: over 5 GB in half
precision at every start, where every rank has loaded them already. It would also hide that a node has loaded other files than
the rest, from which its encoders come back when samples are drawn. Here digests are compared, and only what differs is sent.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import base_digests
from adapter_trainer.model.adapter_model import AdapterModel


def make_alike(model: AdapterModel, known: Mapping[Tensor, int], processes: Processes) -> None:
    """Gives every rank rank 0's weights; collective, before the model is wrapped or sharded.

    What was loaded has to be the same on all ranks. What was built from the seed may differ in its last bits, because
    processors of different kinds draw random numbers with different instructions; rank 0's is sent.

    Args:
        model: As this rank has built or loaded it.
        known: `loaded.digests` of its parameters and buffers.
        processes: Of this run.

    Raises:
        InvalidConfig: on every rank, that some have loaded other weights than rank 0.
    """
    if processes.world_size == 1:
        return
    named = (*model.named_parameters(), *model.named_buffers())
    tensors = {name: tensor for name, tensor in named if tensor in known}
    digests = processes.gather([known[tensor] for tensor in tensors.values()])
    unlike = {
        name: ranks
        for index, name in enumerate(tensors)
        if (ranks := {rank for rank, theirs in enumerate(digests) if theirs[index] != digests[0][index]})
    }
    for part, source, parameters in base_digests.parts(model):
        own = set(parameters)
        if ranks := set().union(*(found for name, found in unlike.items() if tensors[name] in own)):
            raise InvalidConfig(
                f"{part}: {source} gave rank {', '.join(map(str, sorted(ranks)))} other weights than rank 0; name a commit "
                "as its `revision`, or give every node the same files"
            )
    sent = processes.broadcast({name: tensors[name].cpu() for name in unlike} if processes.is_main else None, 0)
    with torch.no_grad():
        for name, tensor in sent.items():
            tensors[name].copy_(tensor)


def with_shared_gradients(module: nn.Module, device: torch.device, *, some_unused: bool) -> DistributedDataParallel:
    """Averages the gradients over all ranks in each backward pass; collective there alone.

    Args:
        module: Replicas that are alike.
        device: Of all its weights.
        some_unused: Whether some trained weights take no part in the loss, which has to be looked for in each step.
    """
    return DistributedDataParallel(
        module,
        device_ids=None if device.type == "cpu" else [device],
        init_sync=False,  # they are alike
        forward_sync_buffers=False,  # no module here has buffers that training changes
        gradient_as_bucket_view=True,
        find_unused_parameters=some_unused,
    )
