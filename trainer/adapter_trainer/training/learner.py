"""The third stage of a run: its model is built, wrapped for the processes, and given an optimizer."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from adapter_api.layout import HISTORY_FILE
from adapter_api.training import TrainingConfig
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import base_digests, replicas, sharding
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.training import building, optimizers, randomness, trained_data
from adapter_trainer.training.dataset import Dataset
from adapter_trainer.training.join import Joined
from adapter_trainer.training.learning_rates import LearningRates
from adapter_trainer.training.state import TrainingState


@dataclass(frozen=True)
class Learner:
    """The model and everything that learns with it, before its first step."""

    state: TrainingState
    module: nn.Module
    """state.model, wrapped for this number of processes."""


def build_learner(dataset: Dataset, joined: Joined, models: Path | None) -> Learner:
    """Builds or loads the model, and wraps it; collective.

    Args:
        dataset: What it is to learn.
        joined: The processes.
        models: Folder that models have been staged to from object storage.

    Raises:
        TrainingError: a part that cannot be built or loaded, or nothing to train.
    """
    config, processes, accelerator = dataset.config, joined.processes, joined.accelerator
    model = building.model_of(config, models, dataset.rows, joined.device, processes, joined.show)
    base = _agreed_base(model, processes)
    if is_sharded := config.optimization.parallelism == "FSDP" and processes.world_size > 1:
        sharding.shard(model, joined.device.type, processes.world_size)
    optimizer = _optimizer(config, model)
    ema = _average(config, optimizer)
    # What is only evaluated, Accelerate wraps for mixed precision alone, and leaves the processes to us.
    module: nn.Module = accelerator.prepare_model(model, evaluation_mode=True)
    # One process shares no gradients, and would keep them a second time.
    if processes.world_size > 1 and not is_sharded:
        module = replicas.with_shared_gradients(module, joined.device, some_unused=_has_unused(config))
    state = TrainingState(
        config=config,
        model=model,
        optimizer=accelerator.prepare_optimizer(optimizer),
        rates=LearningRates(optimizer),
        ema=ema,
        accelerator=accelerator,
        data=trained_data.record_of(config, dataset.rows, dataset.contents, dataset.layout, processes),
        history=joined.output / HISTORY_FILE,
        base=base,
    )
    randomness.seed(config.seed, 0, processes.rank)
    return Learner(state, module)


def _agreed_base(model: AdapterModel, processes: Processes) -> dict[str, str]:
    """Returns digests of the loaded weights that stay as they are, once all ranks have equal ones; collective."""
    digests = base_digests.digests((*model.parameters(), *model.buffers()))
    replicas.make_alike(model, digests, processes)
    return base_digests.base_digests(model, digests)


def _optimizer(config: TrainingConfig, model: AdapterModel) -> torch.optim.Optimizer:
    groups = []
    names = {parameter: name for name, parameter in model.named_parameters()}
    for _, module, part in model.trainable_parts():
        # A frozen UNet may have trained low-rank weights in it, which are a part by themselves.
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad and part.train]
        if trained:
            rate = part.learning_rate or config.optimization.learning_rate
            groups.append({"params": trained, "names": [names[parameter] for parameter in trained], "lr": rate})
    if not groups:
        raise InvalidConfig("model.params: nothing is trained; set train: true for a part")
    return optimizers.optimizer(config.optimization.optimizer, groups, config.optimization.learning_rate)


def _average(config: TrainingConfig, optimizer: torch.optim.Optimizer) -> EMAModel | None:
    """Returns the moving average of this rank's trained parameters, if one is configured."""
    settings = config.optimization.ema
    if settings is None:
        return None
    trained = [sharding.rows_of(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    floor = 0.0 if settings.warmup else settings.decay
    return EMAModel(trained, decay=settings.decay, min_decay=floor, foreach=True)


def _has_unused(config: TrainingConfig) -> bool:
    """Whether some trained weights receive no gradient, because encoders are read at their penultimate states."""
    params = config.model.params
    image = params.image_encoder_config
    return any(encoder.train for encoder in params.text_config.encoders) or (image is not None and image.train)
