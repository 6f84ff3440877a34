"""PURE: what a checkpoint says of itself: export.json for programs, README.md for people and model hubs."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from adapter_api.conditions import adapter_path, conditioner_path
from adapter_api.sources import PIPELINE_ENCODERS, is_stored
from adapter_api.training import TrainingConfig
from adapter_trainer.checkpoint.tensor_files import SUFFIX
from adapter_trainer.model import ip_adapter_file, sharding, weights
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.first_stage import Autoencoder

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
    """SHA-256 over the sorted digests of all pictures, where they were read."""
    rows: str | None = None
    """Digest of what stands in each row, and of how large the files are that it names."""
    embeddings: str | None = None
    """As of pictures."""
    sizes: str | None = None
    """Digest of the sizes that samples have, where they have several."""


@dataclass(frozen=True)
class AdapterRecord:
    """One adapter, and what can load it."""

    name: str
    layout: str
    """base, Plus, full or FaceID, as published IP-Adapters are called; else unknown."""
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
    """`loads`, perhaps with a weight to be set, or why it does not."""


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
    token_columns: dict[str, str]
    """The data column of each."""
    lora: str | None
    """File of the UNet's low-rank weights, for diffusers."""
    lora_kohya: str | None
    """The same under kohya's names, for ComfyUI and others."""
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
    files = {path.name: f"{file}{SUFFIX}" for path, file in weights.written_adapters(model).items()}
    adapters = []
    for name, adapter in weights.adapters_of(model).items():
        obstacle = ip_adapter_file.diffusers_obstacle(adapter)
        settings = params.adapters_config[name]
        adapters.append(
            AdapterRecord(
                name=name,
                layout=ip_adapter_file.layout_of(adapter.tokens.projector),
                tokens=adapter.tokens.num_tokens,
                layers=len(adapter.layers),
                column=model.columns[adapter_path(name)].name,
                scale=adapter.scale,
                null_condition=settings.null_condition,
                file=files.get(name),
                diffusers=obstacle or _loads(adapter.scale, f"pipe.set_ip_adapter_scale({adapter.scale:g})"),
                comfyui=ip_adapter_file.comfyui_obstacle(adapter, model.token_dim)
                or _loads(adapter.scale, f"weight {adapter.scale:g}"),
            )
        )
    has_lora = model.lora is not None and not sharding.is_sharded(model)
    return ExportRecord(
        step=step,
        weights="averaged" if averaged else "last",
        base_model=params.pretrained_model_name_or_path or params.unet_config.pretrained,
        prediction_type=params.scheduler_config.params.filled.prediction_type,
        seed=config.seed,
        data=data,
        versions=versions,
        adapters=tuple(adapters),
        token_conditioners=tuple(model.token_conditioners),
        token_columns={name: model.columns[conditioner_path(name)].name for name in model.token_conditioners},
        lora=f"{weights.LORA_PART}{SUFFIX}" if has_lora else None,
        lora_kohya=f"{weights.KOHYA_PART}{SUFFIX}" if has_lora else None,
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


def _loads(scale: float, how: str) -> str:
    return "loads" if scale == 1 else f"loads, with {how}"


def card_of(record: ExportRecord) -> str:
    """The model card, with the front matter that model hubs read."""
    lines = ["---", *_front_matter(record), "---", ""]
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
    lines += _together(record.adapters) if draws else []
    if record.lora:
        how = (
            _code(f'pipe.load_lora_weights(".", weight_name="{record.lora}")') if draws else [f"- file `{record.lora}`"]
        )
        lines += [
            "", "## LoRA of the UNet", "",
            (f"`{record.lora_kohya}` is the same under kohya's names, for ComfyUI and other programs; its alpha is its rank, so "
            "that it is as strong in those that know no alpha."), "", *how,
        ]  # fmt: skip
    if record.token_columns:
        values = ", ".join(f'"{column}": {column}' for column in record.token_columns.values())
        lines += [
            "", "## Token conditioners", "",
            (f"{', '.join(record.token_columns)}: tokens behind the text's, made by the package adapter-training-operator. Values "
            "are tensors [prompts, width], labels one-hot."),
        ]  # fmt: skip
        code = _code(
            "from adapter_trainer.conditioners import load", "",
            f'inputs = load(".").prompt_embeds(pipe, ["a caption"], {{{values}}})', "pipe(**inputs)",
        )  # fmt: skip
        lines += ["", *code] if draws else []
    lines += ["", "## Where it comes from", "", f"- seed {record.seed}, predicts {record.prediction_type}"]
    if record.base_model and (is_stored(record.base_model) or _HUB_NAME.fullmatch(record.base_model)):
        lines += [f"- base `{record.base_model}`"]  # not a folder: its path is somebody's own
    if record.data is not None:
        lines += [f"- {record.data.samples} samples of `{record.data.table}`, SHA-256 `{record.data.sha256}`"]
        lines += [f"- pictures: SHA-256 `{record.data.pictures}`"] if record.data.pictures else []
    lines += [f"- {name} {version}" for name, version in record.versions.items()]
    return "\n".join(lines) + "\n"


def _front_matter(record: ExportRecord) -> list[str]:
    """What model hubs read, of what there is."""
    adapters = [adapter for adapter in record.adapters if adapter.file is not None]
    tags = ["stable-diffusion-xl", *(["ip-adapter"] if adapters else []), *(["lora"] if record.lora else [])]
    loads = "diffusers" if adapters or record.lora else "adapter-training-operator"
    lines = [f"library_name: {loads}", "pipeline_tag: text-to-image"]
    if record.base_model and _HUB_NAME.fullmatch(record.base_model):  # hubs refuse what is none of their names
        lines.append(f"base_model: {record.base_model}")
    return [*lines, f"tags: [{', '.join([*tags, 'adapter-training-operator'])}]"]


def _together(adapters: tuple[AdapterRecord, ...]) -> list[str]:
    """How adapters are loaded at once: a second call of load_ip_adapter takes the place of the first."""
    some = [adapter for adapter in adapters if adapter.file is not None]
    lines = []
    if len(some) > 1:
        names, empty = [adapter.file for adapter in some], [""] * len(some)
        folders = ["."] * len(some)
        lines += [
            "", "## All adapters together", "",
            *_code(f"pipe.load_ip_adapter({folders}, subfolder={empty}, weight_name={names}, image_encoder_folder=None)",
                   f"pipe.set_ip_adapter_scale({[adapter.scale for adapter in some]})"),
        ]  # fmt: skip
    if some:
        lines += [
            "", ("`ip_adapter_image_embeds` takes for each adapter one tensor [2, 1, …]: the features of no reference, then of the "
            "one reference. One call for each reference: more of them in one call are mixed into every picture."),
        ]  # fmt: skip
    return lines


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
