"""Weights that adapters and token conditioners begin with: of a checkpoint, of an export, or of an IP-Adapter's file."""

from collections.abc import Mapping
from pathlib import Path

from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from adapter_api.conditions import ModulePath
from adapter_api.layout import STATE_FILE
from adapter_api.sources import is_single_file
from adapter_trainer.checkpoint import tensor_files
from adapter_trainer.checkpoint.checkpoint_folder import fault_of
from adapter_trainer.errors import DamagedCheckpoint, InvalidConfig
from adapter_trainer.model import ip_adapter_file, single_file
from adapter_trainer.model.adapters import Adapter

CONDITIONERS_PART = "token_conditioners"
"""Averages of all token conditioners, where an average is kept."""


def begin_conditioner(module: nn.Module, path: ModulePath, source: str) -> None:
    """Gives a token conditioner its weights.

    Raises:
        InvalidConfig: `source` has none that fit; names the field.
    """
    found = _of_parts(_opened(source, path.field), path)
    _load(module, found, source, path.field, f"no weights of {path.name}")


def begin_adapter(adapter: Adapter, path: ModulePath, unet: UNet2DConditionModel, source: str) -> None:
    """Gives an adapter its weights: those of the adapter of that name, or of the only one that there is.

    Raises:
        InvalidConfig: `source` has none that fit; names the field.
    """
    opened = _opened(source, path.field)
    files = sorted({key.partition(":")[0] for key in opened})
    published = [part for part in files if part == Path(source).stem or part.startswith("ip_adapter")]
    own = f"ip_adapter-{path.name}"
    chosen = own if own in published else published[0] if len(published) == 1 else None
    if chosen is not None:
        found = ip_adapter_file.from_file(
            dict(_part(opened, chosen)), ip_adapter_file.layers_of(unet), set(adapter.layer_names())
        )
    else:
        found = _of_parts(opened, path)
    _load(adapter, found, source, path.field, f"no adapter {path.name!r}")


def _opened(source: str, field: str) -> Mapping[str, Tensor]:
    """All tensors of a folder or file, as `<part>:<name>`."""
    path = single_file.file_named(source, f"{field}.pretrained") if is_single_file(source) else Path(source)
    try:
        if path.is_file():
            return {f"{path.stem}:{key}": value for key, value in load_file(path).items()}
        if not path.is_dir():
            raise InvalidConfig(
                f"{field}.pretrained: there is no {source}; name a checkpoint folder, a folder that `atj export` has "
                "written, or a .safetensors file, absolute or from the working directory"
            )
        if (path / STATE_FILE).exists() and (fault := fault_of(path)) is not None:
            raise InvalidConfig(f"{field}.pretrained: {source} {fault}; name another checkpoint")
        return tensor_files.stored(path)
    except (OSError, SafetensorError, DamagedCheckpoint) as error:
        raise InvalidConfig(f"{field}.pretrained: {source} cannot be read: {error}") from None


def _part(opened: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    start = f"{part}:"
    return {key.removeprefix(start): opened[key] for key in opened if key.startswith(start)}


def _of_parts(opened: Mapping[str, Tensor], path: ModulePath) -> dict[str, Tensor]:
    """Of the module's part; averaged, where an average was kept: it is what the checkpoint draws with."""
    found = _part(opened, f"model/{path.part}") or _part(opened, path.part)
    averages = _part(opened, "ema")
    averages |= {f"{CONDITIONERS_PART}.{name}": value for name, value in _part(opened, CONDITIONERS_PART).items()}
    return {name: averages.get(f"{path.module}.{name}", value) for name, value in found.items()}


def _load(module: nn.Module, found: Mapping[str, Tensor], source: str, field: str, absence: str) -> None:
    if not found:
        raise InvalidConfig(
            f"{field}.pretrained: {source} holds {absence}; name another, or remove it to begin with new weights"
        )
    wanted = module.state_dict()
    # A published adapter has no learned null.
    missing = [name for name in wanted if name not in found and not name.endswith("null_tokens")]
    ours, theirs = _input_width(wanted), _input_width(found)
    if ours is not None and theirs is not None and ours != theirs:
        raise InvalidConfig(
            f"{field}.pretrained: {source} reads features that are {theirs} wide{_made_by(theirs)}, and here they are {ours} wide"
            f"{_made_by(ours)}; name the image encoder or column that it was made with, or remove `pretrained`"
        )
    odd = [
        f"{name} {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    if missing or odd:
        what = odd[0] if odd else f"no {missing[0]}"
        raise InvalidConfig(
            f"{field}.pretrained: {source} has {what}: it was made with another projector, column or UNet; give this module "
            "the same ones, or remove `pretrained`"
        )
    module.load_state_dict({**wanted, **{name: found[name] for name in wanted if name in found}})


_INPUTS = ("tokens.projector.proj_in.weight", "tokens.projector.proj.0.weight", "tokens.projector.proj.weight")
"""The first layer of each kind of projector in an adapter; its columns are the features that it reads."""
_ENCODERS = {
    1024: "CLIP ViT-H, pooled",
    1280: "CLIP ViT-bigG, pooled, or ViT-H, penultimate",
    1664: "CLIP ViT-bigG, penultimate",
}
"""Features of the encoders that IP-Adapters for SDXL are published for, by width."""


def _input_width(state: Mapping[str, Tensor]) -> int | None:
    return next((state[name].shape[1] for name in _INPUTS if name in state), None)


def _made_by(width: int) -> str:
    return f" ({_ENCODERS[width]})" if width in _ENCODERS else ""
