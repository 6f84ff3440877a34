"""Where each part's weights come from: a folder or hub name, or a seeded construction from its parameters."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import huggingface_hub
import torch
import transformers
from torch import nn

from adapter_api.networks import Source
from adapter_api.sources import (
    SCHEDULER_FOLDER,
    is_single_file,
    scheduler_folder,
    staged_name,
    stored_models,
    with_staged_models,
)
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import single_file

Module = TypeVar("Module", bound=nn.Module)


def with_local_models(config: TrainingConfig, models: Path | None) -> TrainingConfig:
    """The configuration with folders in place of addresses in object storage.

    Args:
        config: As the user wrote it; this one is what checkpoints and cards show.
        models: Folder that addresses have been staged to; None where nothing was.

    Raises:
        InvalidConfig: something has not been staged.
    """
    params = config.model.params
    for stored in stored_models(params):
        if models is None or not (models / staged_name(stored.uri)).is_dir():
            raise InvalidConfig(
                f"{stored.field}: {stored.uri} has not been fetched: `atj run` and jobs in a cluster do that before they "
                "train; elsewhere, download it and name the folder"
            )
    if models is None:
        return config
    local = config.model.model_copy(update={"params": with_staged_models(params, str(models))})
    return config.model_copy(update={"model": local})


def without_beginnings(config: TrainingConfig) -> TrainingConfig:
    """The configuration whose adapters, token conditioners and low-rank weights load nothing to begin with."""
    params = config.model.params
    tokens = {
        name: each if each is None else each.model_copy(update={"pretrained": None})
        for name, each in params.token_conditioners
    }
    update: dict[str, Any] = {
        "adapters_config": {
            name: each.model_copy(update={"pretrained": None}) for name, each in params.adapters_config.items()
        },
        "token_conditioners": params.token_conditioners.model_copy(update=tokens),
    }
    if (lora := params.unet_config.lora) is not None:
        update["unet_config"] = params.unet_config.model_copy(
            update={"lora": lora.model_copy(update={"pretrained": None})}
        )
    model = config.model.model_copy(update={"params": params.model_copy(update=update)})
    return config.model_copy(update={"model": model})


def load(loader: Any, source: Source, field: str, dtype: torch.dtype) -> Any:
    """A module of a diffusers or transformers class, out of a folder, the hub or a single file.

    From safetensors only, with weights of `dtype` however they are stored.

    Raises:
        InvalidConfig: the folder or hub name does not hold such a module.
    """
    if is_single_file(str(source.pretrained)):
        return single_file.load(loader, source, field, dtype)
    options = {"subfolder": source.subfolder, "revision": source.revision, "variant": source.variant}
    given = {name: value for name, value in options.items() if value is not None}
    transformers.utils.logging.disable_progress_bar()  # a log is no terminal
    try:
        return loader.from_pretrained(source.pretrained, use_safetensors=True, **{_dtype_of(loader): dtype}, **given)
    except (OSError, ValueError, KeyError) as error:
        where = source.pretrained if source.subfolder is None else f"{source.pretrained} (folder {source.subfolder})"
        raise InvalidConfig(
            f"{field}: {where} cannot be loaded as {loader.__name__}: {_first_line(error)}; name a local folder or hub "
            "name in the layout of diffusers or transformers, with safetensors weights"
        ) from error


def scheduler_of(unet: Source) -> dict[str, Any] | None:
    """The `scheduler_config.json` of the pipeline that a UNet is part of; None where it is part of none, or that has none.

    Raises:
        InvalidConfig: It cannot be read.
    """
    name, subfolder = str(unet.pretrained), scheduler_folder(unet.subfolder)
    if is_single_file(name):
        return single_file.stated_schedule(unet, "model.params.unet_config")
    file = diffusers.SchedulerMixin.config_name
    try:
        if (folder := Path(name)).is_dir():
            root = folder / subfolder if subfolder is not None else folder.parent / SCHEDULER_FOLDER
            if not (root / file).is_file():
                return None
            path = root / file
        elif subfolder is None:
            return None
        else:
            path = Path(huggingface_hub.hf_hub_download(name, file, subfolder=subfolder, revision=unet.revision))
        found = json.loads(path.read_text(encoding="utf-8"))
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        raise InvalidConfig(
            f"model.params.scheduler_config: {name} (folder {subfolder}) cannot be asked for {file}: {_first_line(error)}; "
            "without it the base's prediction type is unknown: fetch it, or set params.prediction_type"
        ) from error
    except huggingface_hub.errors.EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"model.params.scheduler_config: {name} (folder {subfolder or SCHEDULER_FOLDER}): {file} cannot be read: "
            f"{_first_line(error)}; restore it"
        ) from error
    if not isinstance(found, dict):
        raise InvalidConfig(f"model.params.scheduler_config: {name}: {file} is not a JSON object; restore it")
    return found


def _dtype_of(loader: Any) -> str:
    """What diffusers and transformers call it."""
    return "torch_dtype" if issubclass(loader, diffusers.ModelMixin) else "dtype"


def build(name: str, seed: int, construct: Callable[[], Module], field: str) -> Module:
    """Constructs a module with weights that depend on the seed and its name alone, not on what was built before.

    Raises:
        InvalidConfig: the parameters do not fit together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
        try:
            return construct()
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            raise InvalidConfig(f"{field}: cannot be built: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
