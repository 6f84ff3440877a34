"""PURE: what a checkpoint says of itself: export.json for programs, README.md for people and model hubs."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from adapter_api.sources import PIPELINE_ENCODERS
from adapter_api.training import TrainingConfig
from adapter_trainer import export, weights
from adapter_trainer.first_stage import Autoencoder
from adapter_trainer.model import AdapterModel
from adapter_trainer.tensor_files import SUFFIX

CARD_FILE = "README.md"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""Hubs refuse cards that name a folder of somebody's machine as their base."""


@dataclass(frozen=True)
class DataRecord:
    """Which data a run was trained on."""

    table: str
    """Name of the pairs file."""
    sha256: str
    """Of the pairs file."""
    samples: int
    pictures: str | None
    """SHA-256 over the sorted digests of all pictures, where they were read for the cache."""


@dataclass(frozen=True)
class AdapterRecord:
    """One adapter, and what can load it."""

    name: str
    layout: str
    """base, Plus, full or FaceID, as published IP-Adapters are called."""
    tokens: int
    layers: int
    """Cross-attention layers that it reaches."""
    column: str
    scale: float
    """Weight of its attention in training."""
    null_condition: str
    file: str | None
    """None where no pipeline could load it."""
    diffusers: str
    comfyui: str
    """`loads`, or why it does not."""


@dataclass(frozen=True)
class ExportRecord:
    """What of a checkpoint works elsewhere, and where it comes from."""

    step: int
    weights: str
    """averaged or last: which ones the files for pipelines hold."""
    base_model: str | None
    prediction_type: str
    seed: int
    data: DataRecord | None
    versions: dict[str, str]
    adapters: tuple[AdapterRecord, ...]
    token_conditioners: tuple[str, ...]
    lora: str | None
    """File of the UNet's low-rank weights."""
    pipeline: str = "draws"
    """`draws`, or why no diffusers pipeline can draw with this model, whatever loads its parts."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in export.json."""
        return asdict(self)


def record_of(
    model: AdapterModel, config: TrainingConfig, *, step: int, averaged: bool, data: DataRecord | None,
    versions: dict[str, str],
) -> ExportRecord:  # fmt: skip
    """What the checkpoint of a step says of itself."""
    params = config.model.params
    files = {part.removeprefix("adapter-"): f"{file}{SUFFIX}" for part, file in weights.written_adapters(model).items()}
    adapters = []
    for name, adapter in weights.adapters_of(model).items():
        obstacle = export.diffusers_obstacle(adapter)
        settings = params.adapters_config[name]
        adapters.append(
            AdapterRecord(
                name=name,
                layout=export.layout_of(adapter.tokens.projector),
                tokens=adapter.tokens.num_tokens,
                layers=len(adapter.layers),
                column=model.columns[f"adapters_config.{name}"].name,
                scale=adapter.scale,
                null_condition=settings.null_condition,
                file=files.get(name),
                diffusers=obstacle or "loads",
                comfyui=export.comfyui_obstacle(adapter, model.token_dim) or "loads",
            )
        )
    return ExportRecord(
        step=step,
        weights="averaged" if averaged else "last",
        base_model=params.pretrained_model_name_or_path or params.unet_config.pretrained,
        prediction_type=params.scheduler_config.params.prediction_type,
        seed=config.seed,
        data=data,
        versions=versions,
        adapters=tuple(adapters),
        token_conditioners=tuple(model.token_conditioners),
        lora=f"{weights.LORA_PART}{SUFFIX}" if model.lora is not None else None,
        pipeline=pipeline_obstacle(model) or "draws",
    )


def pipeline_obstacle(model: AdapterModel) -> str | None:
    """Why StableDiffusionXLPipeline cannot draw with a model of these parts; None where it can."""
    if not isinstance(model.first_stage, Autoencoder):
        return "the model works on pixels, a pipeline on an autoencoder's latents"
    if model.unet.config.addition_embed_type != "text_time":
        return "the UNet takes no pooled text, a pipeline gives it"
    encoders = 0 if model.text_encoders is None else len(model.text_encoders.encoders)
    if encoders != len(PIPELINE_ENCODERS):
        return f"the model has {encoders} text encoders, a pipeline {len(PIPELINE_ENCODERS)}"
    return None


def card_of(record: ExportRecord) -> str:
    """The model card, with the front matter that model hubs read."""
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-image"]
    lines += (
        [f"base_model: {record.base_model}"] if record.base_model and _HUB_NAME.fullmatch(record.base_model) else []
    )
    lines += ["tags: [stable-diffusion-xl, ip-adapter, adapter-training-operator]", "---", ""]
    lines += [f"# Checkpoint of step {record.step}", ""]
    lines.append(
        f"The files below hold the {record.weights} weights. `training.yaml` is the whole configuration, `versions.json` "
        "what it ran on, `export.json` this page for programs."
    )
    draws = record.pipeline == "draws"
    if not draws:
        lines += ["", f"No diffusers pipeline draws with this model: {record.pipeline}. `atj sample` does."]
    for adapter in record.adapters:
        lines += ["", f"## Adapter `{adapter.name}`", "", *_adapter_lines(adapter, draws=draws)]
    if record.lora:
        how = (
            _code(f'pipe.load_lora_weights(".", weight_name="{record.lora}")') if draws else [f"- file `{record.lora}`"]
        )
        lines += ["", "## LoRA of the UNet", "", *how]
    if record.token_conditioners:
        lines += [
            "",
            "## Token conditioners",
            "",
            f"{', '.join(record.token_conditioners)}: tokens behind the text's.",
        ]
        code = _code(
            "from adapter_trainer.conditioners import load", "",
            'inputs = load(".").prompt_embeds(pipe, ["a caption"], {"<column>": vectors})', "pipe(**inputs)",
        )  # fmt: skip
        lines += ["", *code] if draws else []
    lines += ["", "## Where it comes from", "", f"- seed {record.seed}, predicts {record.prediction_type}"]
    if record.data is not None:
        lines += [f"- {record.data.samples} samples of `{record.data.table}`, SHA-256 `{record.data.sha256}`"]
        lines += [f"- pictures: SHA-256 `{record.data.pictures}`"] if record.data.pictures else []
    lines += [f"- {name} {version}" for name, version in record.versions.items()]
    return "\n".join(lines) + "\n"


def _adapter_lines(adapter: AdapterRecord, *, draws: bool) -> list[str]:
    lines = [
        f"- layout {adapter.layout}, {adapter.tokens} tokens, {adapter.layers} layers, driven by `{adapter.column}`"
    ]
    lines += [f"- diffusers: {adapter.diffusers}", f"- ComfyUI_IPAdapter_plus: {adapter.comfyui}"]
    if adapter.file is None:
        return [*lines, "- no file for pipelines; `atj sample` draws with it"]
    if not draws:
        return [*lines, f"- file `{adapter.file}`, which a UNet of this shape loads"]
    if adapter.null_condition != "encoded":
        lines.append(
            f"- its null is {adapter.null_condition}, which no pipeline can be given: pictures without guidance are the "
            "same, guidance is against what the pipeline takes for none instead"
        )
    lines += ["", *_code(f'pipe.load_ip_adapter(".", subfolder="", weight_name="{adapter.file}", image_encoder_folder=None)',
                         f"pipe.set_ip_adapter_scale({adapter.scale:g})")]  # fmt: skip
    return lines


def _code(*lines: str) -> list[str]:
    return ["```python", *lines, "```"]
