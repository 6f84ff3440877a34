"""PURE: what lies in a folder of pictures -> the text of a job that trains on it, with comments for its owner."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from atj.machine.data_folder import WITH_NAMES
from atj.machine.found_data import DataFolder, FoundColumn, Record, caption_of

Condition = Literal["label", "reference", "embedding", "caption"]
CONDITIONS: tuple[Condition, ...] = ("label", "reference", "embedding", "caption")
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
TINY_SIDE, TINY_PATCH, TINY_WIDTH = 64, 4, 128
TINY_STEPS, TINY_BATCH = 400, 8
GRID_ROWS, GRID_COLUMNS = 6, 6
_PLAIN = re.compile(r"/?[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class NewJob:
    """What is asked for."""

    name: str
    data: DataFolder
    data_path: str
    """As the trainer is to open it."""
    conditions: tuple[Condition, ...]
    is_tiny: bool
    tokenizer: str | None = None
    """Folder of the tokenizer that was written for a tiny text encoder."""
    vocabulary: int = 0
    file: str = "job.yaml"
    """Name of the file, for the commands in its comments."""


def offered(data: DataFolder) -> tuple[Condition, ...]:
    """The conditions that the data can give. A picture can always be its own reference."""
    found: list[Condition] = []
    if data.column("label") is not None:
        found.append("label")
    found.append("reference")
    if data.column("embedding", "vector") is not None:
        found.append("embedding")
    if len(set(data.captions)) > 1:
        found.append("caption")
    return tuple(found)


def job_text(new: NewJob) -> str:
    """The whole file."""
    lines = [
        *(" ".join(line.split()) if "\n" in line or "\t" in line else line for line in _opening(new)),
        "apiVersion: adaptertraining.dev/v1alpha1",
        "kind: AdapterTrainingJob",
        f"metadata: {{name: {new.name}}}",
        "spec:",
        *_indented(_machines(new), 1),
        "  training:",
        *_indented(_training(new), 2),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _opening(new: NewJob) -> Iterator[str]:
    data = new.data
    count = len(data.records)
    yield f"# Trains on {count} picture{'s' * (count != 1)} in {new.data_path}{_of_size(data.sizes())}."
    for column in data.columns:
        yield f"#   {column.name}: {_said(column)}"
    if data.captions:
        yield f"#   caption: {len(set(data.captions))} different ones, such as {_short(data.captions[0])}"
    for note in data.notes:
        yield f"#   {note}"
    for ignored in (*data.ignored, *data.left_out):
        yield f"#   not used: {ignored}"
    yield "#"
    if new.is_tiny:
        yield "# A small network learns these pictures by heart: it shows in minutes that the data and conditions are right."
        yield f"#   atj validate {new.file}    opens the data as well"
        yield f"#   atj run {new.file}         trains here; the pictures that it draws are in atj-output/{new.name}"
        yield "#   atj init --sdxl         the same for Stable Diffusion XL, on a GPU"
    else:
        yield f"#   atj validate {new.file}             opens the data as well"
        yield f"#   atj plan {new.file} --device l4     memory and time, before anything is loaded"
        yield f"#   atj run {new.file}                  on this machine's GPU; atj submit {new.file} on a cluster's"
    yield "# `atj explain spec.training.optimization` says what each field is."


def _of_size(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return ""
    widths, heights = [width for width, _ in sizes], [height for _, height in sizes]
    least, most = (min(widths), min(heights)), (max(widths), max(heights))
    if least == most:
        return f", each {least[0]} x {least[1]} pixels"
    return f", {least[0]} to {most[0]} pixels wide and {least[1]} to {most[1]} high"


def _said(column: FoundColumn) -> str:
    if column.kind == "label":
        names = f": {', '.join(f'{number} {name}' for number, name in enumerate(column.classes[:12]))}"
        more = ", …" if len(column.classes) > 12 else ""
        return f"{column.width} classes{names + more if column.classes else ''}"
    if column.kind == "vector":
        return f"{column.width} number{'s' * (column.width != 1)} for each picture"
    return "a file for each picture" if column.kind == "embedding" else "a reference picture for each picture"


def _machines(new: NewJob) -> Iterator[str]:
    if new.is_tiny:
        yield "nodes: 1                       # 2: two processes on this machine that train together, as two pods would"
    else:
        yield "nodes: 1                       # pods; each runs one torchrun"
        yield "resources:"
        yield '  limits: {cpu: "8", memory: 48Gi, nvidia.com/gpu: "1"}   # of each pod; a process for each GPU'
    if new.is_tiny:
        yield "pod:                           # one thread: several wait for each other, the more the busier the machine is"
        yield '  env: [{name: OMP_NUM_THREADS, value: "1"}]'
    yield "data:"
    yield f"  folder: {_scalar(new.data_path)}   # for `atj run`, from where it is started; pods have s3: {{uri: s3://bucket/prefix}} instead"
    yield "output:"
    if new.is_tiny:
        yield f"  s3: {{uri: s3://checkpoints/{new.name}}}   # `atj run` brings a store of its own; on a cluster, your bucket"
        return
    yield f"  s3: {{uri: s3://checkpoints/{new.name}}}   # your bucket; `atj run` without an endpointURL brings its own store"


def _training(new: NewJob) -> Iterator[str]:
    yield "seed: 0"
    yield "model:"
    yield "  params:"
    yield from _indented(_tiny_model(new) if new.is_tiny else _sdxl_model(new), 2)
    yield "data:"
    yield "  params:"
    yield from _indented(_data(new), 2)
    yield from _optimization(new)
    yield from _sampling(new)


# --- the model ---


def _tiny_model(new: NewJob) -> Iterator[str]:
    channels = 3 * TINY_PATCH**2
    yield "unet_config:                   # built from these numbers and trained whole; SDXL's has a thousand times as many"
    yield "  train: true"
    yield "  params:"
    yield f"    in_channels: {channels}            # 3 colours of the {TINY_PATCH} x {TINY_PATCH} pixels of a patch"
    yield f"    out_channels: {channels}"
    yield "    down_block_types: [CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D]"
    yield "    up_block_types: [CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D]"
    yield "    block_out_channels: [48, 64, 128]"
    yield "    layers_per_block: 1"
    yield "    transformer_layers_per_block: 1"
    yield "    attention_head_dim: [2, 2, 4]"
    yield f"    cross_attention_dim: {TINY_WIDTH}"
    yield "    norm_num_groups: 16"
    yield "    addition_embed_type: null"
    yield f"first_stage_config: {{target: Pixels, patch_size: {TINY_PATCH}}}   # no autoencoder"
    yield "scheduler_config:              # predicts the picture itself, which suits pixels"
    yield "  params:"
    yield "    prediction_type: sample"
    yield "    beta_schedule: linear"
    yield "    beta_start: 0.001"
    yield "    beta_end: 0.03"
    yield "    rescale_betas_zero_snr: true"
    yield "    timestep_spacing: trailing"
    if "caption" in new.conditions:
        yield from _tiny_text(new)
    if "reference" in new.conditions:
        yield "image_encoder_config:          # reads the reference picture; trained from nothing, as there is so little to load"
        yield "  train: true"
        yield "  params:"
        yield "    hidden_size: 64"
        yield "    intermediate_size: 128"
        yield "    num_hidden_layers: 2"
        yield "    num_attention_heads: 4"
        yield "    projection_dim: 64"
        yield "    image_size: 64"
        yield "    patch_size: 8"
    yield from _conditions(new)


def _tiny_text(new: NewJob) -> Iterator[str]:
    yield "text_config:                   # reads the captions; trained from nothing"
    yield "  dropout: 0.1"
    yield "  encoders:"
    yield "    - target: CLIPTextModel"
    yield "      train: true"
    yield f"      tokenizer: {_scalar(new.tokenizer)}   # `atj init` wrote it, from the words of your captions"
    yield "      params:"
    yield f"        hidden_size: {TINY_WIDTH}       # with one encoder, the UNet's cross_attention_dim"
    yield "        intermediate_size: 256"
    yield "        num_hidden_layers: 2"
    yield "        num_attention_heads: 4"
    yield f"        vocab_size: {new.vocabulary}"
    yield "        max_position_embeddings: 32"


def _sdxl_model(new: NewJob) -> Iterator[str]:
    yield f"pretrained_model_name_or_path: {SDXL}   # or a folder, or s3://bucket/prefix"
    yield "text_config:"
    if "caption" in new.conditions:
        yield "  dropout: 0.1                 # captions that are left out, so that guidance has something to go against"
    else:
        yield "  dropout: 0.1"
    yield "  null_condition: zeros        # what SDXL's pipeline takes without a negative prompt"
    if "reference" in new.conditions:
        yield "image_encoder_config:          # ViT-H, 1024 numbers for a picture; always frozen"
        yield "  pretrained: h94/IP-Adapter"
        yield "  subfolder: models/image_encoder"
    yield "unet_config:"
    yield "  train: false                 # the base stays as it is"
    yield "  gradient_checkpointing: true   # a fifth slower, far less memory"
    if new.conditions == ("caption",):
        yield "  lora: {rank: 16}             # what captions alone can train: low-rank weights added to the UNet's own"
    yield from _conditions(new)


def _conditions(new: NewJob) -> Iterator[str]:
    yield from _tokens(new)
    if "reference" not in new.conditions:
        return
    column = new.data.column("reference")
    name = "image" if column is None else column.name
    yield "adapters_config:"
    yield "  style:                       # an IP-Adapter; the name is yours, and there may be several"
    if column is None:
        yield "    column: image              # each picture is its own reference, as in IP-Adapter's own training"
    else:
        yield f"    column: {name}"
    yield '    layers: ["*"]              # all cross-attention layers'
    yield "    projector: {target: Linear, params: {num_tokens: 4}}"
    yield "    dropout: 0.1"
    if new.is_tiny:
        yield "    null_condition: learned"


def _tokens(new: NewJob) -> Iterator[str]:
    label, vector = new.data.column("label"), new.data.column("embedding", "vector")
    has_label = "label" in new.conditions and label is not None
    has_vector = "embedding" in new.conditions and vector is not None
    target = "target: Linear, " if new.is_tiny else ""
    if has_label or has_vector:
        yield "token_conditioners:            # tokens behind the text's"
    if has_label and label is not None:
        tokens = 2 if new.is_tiny else 4
        yield f"  label_to_token: {{column: {label.name}, {target}params: {{num_tokens: {tokens}}}, dropout: 0.1}}"
    if has_vector and vector is not None:
        tokens = 2 if new.is_tiny else 8
        yield f"  embed_to_token: {{column: {vector.name}, {target}params: {{num_tokens: {tokens}}}, dropout: 0.1}}"


# --- data, optimization, sampling ---


def _data(new: NewJob) -> Iterator[str]:
    data = new.data
    # data_root_path stays at its default: spec.data says where the folder is.
    if data.table == ".":
        yield "pairs_file_path: .             # in spec.data's folder; no table: its pictures, captions in .txt files next to them"
    else:
        yield f"pairs_file_path: {_scalar(data.table)}   # in spec.data's folder: one sample a line, picture, caption, columns"
    sizes = data.sizes()
    if new.is_tiny:
        yield f"resolution: {TINY_SIDE}"
    else:
        yield from _sdxl_size(sizes)
    columns = _read_columns(new)
    if columns:
        yield "columns:"
        for column in columns:
            yield f"  - {{name: {column.name}, kind: {column.kind}{_classes(column)}}}"
    if new.is_tiny:
        yield 'cache: {mode: "off"}'
    else:
        yield "num_workers: 4"


def _classes(column: FoundColumn) -> str:
    """Names of classes, or how many there are, or how many numbers."""
    if _has_names(column):
        return f", names: [{', '.join(_scalar(name) for name in column.classes)}]"
    return "" if column.width is None else f", width: {column.width}"


def _has_names(column: FoundColumn) -> bool:
    """Whether its classes can be called by their names: a number would be the class itself."""
    return bool(column.classes) and not any(name.isdecimal() for name in column.classes)


def _read_columns(new: NewJob) -> list[FoundColumn]:
    """Those that a condition reads; of a tab-separated table, every one that it has."""
    if not new.data.table.endswith(WITH_NAMES):
        return list(new.data.columns)
    kinds = {"label": ("label",), "reference": ("reference",), "embedding": ("embedding", "vector"), "caption": ()}
    wanted = [new.data.column(*kinds[condition]) for condition in new.conditions]  # type: ignore[arg-type]
    return [column for column in new.data.columns if column in wanted]


def _sdxl_size(sizes: Sequence[tuple[int, int]]) -> Iterator[str]:
    middle = sorted(min(size) for size in sizes)[len(sizes) // 2] if sizes else 1024
    side = next((each for each in (1024, 768, 512) if middle >= each), 512)
    why = "" if middle >= side else f"   # half of your pictures are smaller than {middle + 1}, and are enlarged"
    if side < 1024:
        why = f"   # SDXL was trained on 1024; half of your pictures are no larger than {middle}"
    yield f"resolution: {side}{why}"
    ratios = [width / height for width, height in sizes]
    if ratios and max(ratios) / min(ratios) > 1.1:
        yield "aspect_buckets: {step: 64, max_ratio: 2.0}   # pictures keep their shape; without it, squares are cut out"


def _optimization(new: NewJob) -> Iterator[str]:
    samples = len(new.data.records)
    yield "optimization:"
    if new.is_tiny:
        batch = min(TINY_BATCH, max(samples, 1))
        yield f"  train_batch_size: {batch}"
        yield f"  max_train_steps: {TINY_STEPS}         # each picture is read {TINY_STEPS * batch // max(samples, 1)} times"
        yield "  learning_rate: 2.0e-3"
        yield "  lr_scheduler: cosine"
        yield "  lr_warmup_steps: 30"
        yield "  optimizer: {params: {betas: [0.9, 0.99]}}"
        yield "  ema: {decay: 0.99}           # pictures are drawn with averaged weights"
        yield f"checkpoint: {{save_steps: {TINY_STEPS // 2}, keep_last: 2}}"
        yield "logging: {log_steps: 10}"
        return
    steps = min(max(samples * 100 // 4, 1000), 50_000) // 500 * 500
    yield "  train_batch_size: 4          # samples of one process"
    yield f"  max_train_steps: {steps}        # each picture is read {max(steps * 4 // samples, 1)} times"
    yield "  learning_rate: 1.0e-4"
    yield "  lr_scheduler: constant_with_warmup"
    yield f"  lr_warmup_steps: {min(steps // 20, 500)}"
    yield "  mixed_precision: bf16"
    yield f"checkpoint: {{save_steps: {max(steps // 10, 250)}, keep_last: 3}}"
    yield "logging: {log_steps: 10}"


def _sampling(new: NewJob) -> Iterator[str]:
    yield "sampling:                        # a grid with every checkpoint; no rows, no grid"
    if new.is_tiny:
        yield "  steps: 10"
        yield "  guidance_scale: 1.5"
    else:
        yield "  scheduler: EulerDiscreteScheduler"
        yield "  steps: 30"
        yield "  guidance_scale: 5.0"
    yield f"  images_per_row: {GRID_COLUMNS if new.is_tiny else 4}"
    yield "  rows:                          # values by column; files from where the command runs, in pods below /data"
    for row in rows(new):
        yield f"    - {{{', '.join(f'{name}: {_scalar(value)}' for name, value in row.items())}}}"


def rows(new: NewJob) -> list[dict[str, Any]]:
    """Conditions of samples that differ in them, one for each class where there are some, from all over the data."""
    label = new.data.column("label") if "label" in new.conditions else None
    found: dict[str, dict[str, Any]] = {}
    for record in new.data.records:
        if row := _row(new, record):
            found.setdefault(str(row[label.name]) if label is not None else json.dumps(row), row)
    different = list(found.values())
    if label is not None:
        number = {name: index for index, name in enumerate(label.classes)}
        different.sort(key=lambda row: number.get(row[label.name], row[label.name]))
    count = min(GRID_ROWS, len(different))
    return [different[index * len(different) // count] for index in range(count)]  # neighbours are often alike


def _row(new: NewJob, record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {}
    data = new.data
    if "label" in new.conditions and (label := data.column("label")) is not None:
        number = int(record[label.name])
        row[label.name] = label.classes[number] if _has_names(label) else number
    if "embedding" in new.conditions and (vector := data.column("embedding", "vector")) is not None:
        value = record[vector.name]
        row[vector.name] = _file(new, value) if vector.kind == "embedding" else _numbers(value)
    if "reference" in new.conditions:
        column = data.column("reference")
        name = "image" if column is None else column.name
        row[name] = _file(new, record[name])
    if "caption" in new.conditions and (caption := caption_of(record)):
        row["caption"] = caption
    return row


def _file(new: NewJob, value: Any) -> str:
    return str(value) if new.data_path == "." else f"{new.data_path}/{value}"


def _numbers(value: Any) -> list[float]:
    parts = value if isinstance(value, list) else str(value).replace(",", " ").split()
    return [float(part) for part in parts]


def _scalar(value: Any) -> str:
    """A value in YAML's flow style: JSON's, which is YAML, too; plain paths as they are."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else f"{text[:59]}…", ensure_ascii=False)


def _indented(lines: Iterator[str], levels: int) -> Iterator[str]:
    return (f"{'  ' * levels}{line}" for line in lines)
