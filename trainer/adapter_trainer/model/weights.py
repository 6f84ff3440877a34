"""PURE: which file of a checkpoint holds which weights, under which names. No weight is stored twice.

- `model/<part>`: a part of the model, as training goes on from it.
- `ip_adapter`, or of several `ip_adapter-<name>`: an adapter as pipelines load it. Where an average is kept, this is the
  average, and `model/adapter-<name>` is what training goes on from; else these are the only ones.
- `token_conditioners`: the average of those, which go with an export.
- `ema`: the average of everything else.
- `pytorch_lora_weights`, `kohya_lora_weights`: for pipelines, and for ComfyUI, alone; small, and scaled by alpha.

Of a sharded model each rank has rows, which no pipeline could load: there, adapters are parts like all others.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from adapter_api.conditions import ModulePath, adapter_path
from adapter_trainer.model import ip_adapter_file, sharding
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.adapters import Adapter
from adapter_trainer.model.part_weights import CONDITIONERS_PART

LORA_PART = "pytorch_lora_weights"
KOHYA_PART = "kohya_lora_weights"

Tensors = dict[str, Tensor]


def files_of(model: AdapterModel, averages: Mapping[str, Tensor] | None) -> dict[str, Tensors]:
    """Tensors by name for each file; `averages`, where one is kept, by parameter of the model."""
    written = {path.part: (path, file) for path, file in written_adapters(model).items()}
    layers = ip_adapter_file.layers_of(model.unet)
    files: dict[str, Tensors] = {}
    left = {name: value.detach() for name, value in (averages or {}).items()}
    for name, module in model.saved_parts().items():
        state: Tensors = {key: value.detach() for key, value in module.state_dict().items()}
        if name not in written:
            files[f"model/{name}"] = state
            continue
        path, file = written[name]
        prefix = f"{path.module}."
        averaged = {key: left.pop(prefix + key) for key in state if prefix + key in left}
        if averaged:
            files[f"model/{name}"] = state
        files[file] = ip_adapter_file.to_file({**state, **averaged}, layers)
    of_tokens = f"{CONDITIONERS_PART}."
    averaged_tokens = [name for name in left if name.startswith(of_tokens)]
    if averaged_tokens and not sharding.is_sharded(model):
        tokens = {name: left.pop(name) for name in averaged_tokens}
        files[CONDITIONERS_PART] = {name.removeprefix(of_tokens): value for name, value in tokens.items()}
    if left:
        files["ema"] = left
    if model.lora is not None and not sharding.is_sharded(model):
        files[LORA_PART], files[KOHYA_PART] = model.lora.to_file(left), model.lora.to_kohya(left)
    return files


def weights_in(
    model: AdapterModel, read: Callable[[str], Mapping[str, Tensor]]
) -> tuple[dict[str, Tensors], Mapping[str, Tensor]]:
    """What `files_of` stored: the state of each saved part by its name, and the averages by parameter.

    Args:
        model: of the same configuration.
        read: gives the tensors of a file; none if there is no such file.
    """
    exported = {path.part: (path, file) for path, file in exported_adapters(model).items()}
    layers = ip_adapter_file.layers_of(model.unet)
    parts: dict[str, Tensors] = {}
    averages: Mapping[str, Tensor] = read("ema")
    if tokens := read(CONDITIONERS_PART):
        averages = {**averages, **{f"{CONDITIONERS_PART}.{name}": value for name, value in tokens.items()}}
    for name in model.saved_parts():
        stored = read(f"model/{name}")
        if name in exported and (published := read(exported[name][1])):
            path = exported[name][0]
            own = ip_adapter_file.from_file(published, layers, set(adapters_of(model)[path.name].layer_names()))
            if stored:
                averages = {**averages, **{f"{path.module}.{key}": value for key, value in own.items()}}
            else:
                stored = own
        parts[name] = dict(stored)
    return parts, averages


def exported_adapters(model: AdapterModel) -> dict[ModulePath, str]:
    """The file of each adapter that pipelines can load."""
    return {
        adapter_path(name): ip_adapter_file.part_of(name, len(model.adapters))
        for name, adapter in adapters_of(model).items()
        if ip_adapter_file.diffusers_obstacle(adapter) is None
    }


def written_adapters(model: AdapterModel) -> dict[ModulePath, str]:
    """Those of them that this model's checkpoints hold."""
    return {} if sharding.is_sharded(model) else exported_adapters(model)


def adapters_of(model: AdapterModel) -> dict[str, Adapter]:
    """The adapters by name."""
    return {name: adapter for name, adapter in model.adapters.items() if isinstance(adapter, Adapter)}
