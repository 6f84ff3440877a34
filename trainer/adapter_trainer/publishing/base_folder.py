"""A trained model as a base for others: every network in diffusers' or transformers' layout, every condition's weights beside.

unet/ vae/ text_encoder/ text_encoder_2/ tokenizer/ tokenizer_2/ image_encoder/ scheduler/     what `pretrained` names
model_index.json                                    where it is a whole pipeline
label_to_token.safetensors embed_to_token.safetensors ip_adapter.safetensors ip_adapter-<name>.safetensors
README.md                                           what to write into a configuration
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from adapter_api.conditions import adapter_path
from adapter_api.layout import CARD_FILE
from adapter_api.model import DiffusionSchedule
from adapter_trainer.checkpoint.tensor_files import SUFFIX
from adapter_trainer.model import ip_adapter_file, registry, weights
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.first_stage import Autoencoder
from adapter_trainer.publishing import card
from adapter_trainer.sampling.sample import Sampler, scheduler_settings

_SUFFIXES = ("", "_2")
"""Of the folders of a pipeline's text encoders."""


def write(sampler: Sampler, to: Path, name: str) -> list[str]:
    """Writes what a loaded checkpoint draws with, averaged weights where an average was kept.

    Args:
        sampler: the checkpoint, loaded.
        to: an empty folder.
        name: what the folder is called in its README.

    Returns:
        What has been written, by name.
    """
    model = sampler.model
    if model.lora is not None:
        model.unet.fuse_lora()
        model.unet.unload_lora()
    target = sampler.config.model.params.scheduler_config.target
    scheduler = registry.SCHEDULERS[target](**scheduler_settings(sampler.config, target))
    is_pipeline = card.pipeline_obstacle(model) is None
    networks = _networks(model)
    for folder, network in networks.items():
        network.save_pretrained(to / folder)
    scheduler.save_pretrained(to / "scheduler")
    tokenizers = [] if model.tokenizers is None else model.tokenizers.tokenizers
    for number, tokenizer in enumerate(tokenizers):
        tokenizer.save_pretrained(to / f"tokenizer{_suffix(number)}")
    if is_pipeline:
        _write_index(model, scheduler, to)
    parts = _parts(model)
    for file, tensors in parts.items():
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, to / f"{file}{SUFFIX}")
    (to / CARD_FILE).write_text(_readme(sampler, networks, parts, name, is_pipeline=is_pipeline), encoding="utf-8")
    return [*networks, "scheduler", *(f"{file}{SUFFIX}" for file in parts)]


def _suffix(number: int) -> str:
    return _SUFFIXES[number] if number < len(_SUFFIXES) else f"_{number + 1}"


def _networks(model: AdapterModel) -> dict[str, Any]:
    found: dict[str, Any] = {"unet": model.unet}
    if isinstance(model.first_stage, Autoencoder):
        found["vae"] = model.first_stage.vae
    for number, encoder in enumerate(model.text_encoders.encoders if model.text_encoders is not None else ()):
        found[f"text_encoder{_suffix(number)}"] = encoder
    if model.image_encoder is not None:
        found["image_encoder"] = model.image_encoder.encoder
    return found


def _write_index(model: AdapterModel, scheduler: object, to: Path) -> None:
    """What tells a folder to be a pipeline, if it is one; everything that it names is there already."""
    stage, texts, tokenizers = model.first_stage, model.text_encoders, model.tokenizers
    if not isinstance(stage, Autoencoder) or texts is None or tokenizers is None:
        return
    from diffusers import (
        StableDiffusionXLPipeline,  # brings everything that any pipeline needs, and says what is missing
    )

    pipeline = StableDiffusionXLPipeline(
        vae=stage.vae,
        text_encoder=texts.encoders[0],
        text_encoder_2=texts.encoders[1],
        tokenizer=tokenizers.tokenizers[0],
        tokenizer_2=tokenizers.tokenizers[1],
        unet=model.unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    pipeline.save_config(to)


def _parts(model: AdapterModel) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {
        name: dict(module.state_dict()) for name, module in model.token_conditioners.items()
    }
    files, layers = weights.exported_adapters(model), ip_adapter_file.layers_of(model.unet)
    for name, adapter in weights.adapters_of(model).items():
        path, state = adapter_path(name), dict(adapter.state_dict())
        found[files.get(path, path.part)] = ip_adapter_file.to_file(state, layers) if path in files else state
    return found


def _readme(
    sampler: Sampler,
    networks: dict[str, Any],
    parts: dict[str, dict[str, Tensor]],
    name: str,
    *,
    is_pipeline: bool,
) -> str:
    usual = DiffusionSchedule().model_dump(mode="json")
    schedule = sampler.config.model.params.scheduler_config.params.filled.model_dump(mode="json")
    settings = {field: value for field, value in schedule.items() if value != usual[field]}
    lines = ["# A base to train on", "", "In a configuration, frozen unless it says `train: true`:", "", "```yaml"]
    lines += ["model:", "  params:"]
    if is_pipeline:
        lines.append(f"    pretrained_model_name_or_path: {name}")
    else:
        lines.append(f"    unet_config: {{pretrained: {name}, subfolder: unet}}")
        stage = sampler.config.model.params.first_stage_config
        lines.append(
            f"    first_stage_config: {{pretrained: {name}, subfolder: vae}}"
            if "vae" in networks
            else f"    first_stage_config: {{target: Pixels, patch_size: {stage.patch_size}}}"
        )
        texts = [each.removeprefix("text_encoder") for each in networks if each.startswith("text_encoder")]
        lines += ["    text_config:", "      encoders:"] if texts else []
        for suffix, encoder in zip(texts, sampler.config.model.params.text_config.encoders, strict=False):
            lines.append(
                f"        - {{target: {encoder.target}, pretrained: {name}, subfolder: text_encoder{suffix}, "
                f"tokenizer: {name}, tokenizer_subfolder: tokenizer{suffix}}}"
            )
    if "image_encoder" in networks:
        lines.append(f"    image_encoder_config: {{pretrained: {name}, subfolder: image_encoder}}")
    if settings:
        inner = ", ".join(
            f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()
        )
        lines.append(f"    scheduler_config: {{params: {{{inner}}}}}")
    lines += ["```", ""]
    if parts:
        lines.append(
            f"Conditions of the same shape can begin with what this model's have learnt ({', '.join(parts)}): "
            f"`pretrained: {name}` in the token conditioner, or in the adapter of the same name.\n"
        )
    return "\n".join(lines)
