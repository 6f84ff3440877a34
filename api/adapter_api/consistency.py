"""PURE: rules across the fields of a training configuration, each with the field to change."""

from collections.abc import Iterator

from adapter_api.columns import BUILT_IN, column_of, columns_of, fitting_kinds
from adapter_api.conditions import adapter_path, conditioner_path
from adapter_api.networks import Trainable
from adapter_api.sections import TrainingSections
from adapter_api.sources import PIPELINE_ENCODERS

Location = tuple[str | int, ...]
Fault = tuple[Location, str]
"""Location of the field to change, and what is wrong with it."""


def inconsistencies(config: TrainingSections) -> list[Fault]:
    """Every rule that the configuration breaks; empty when it is consistent."""
    rules = (
        _columns,
        _modules,
        _dropouts,
        _trained,
        _pipeline,
        _first_stage,
        _resolution,
        _cache,
        _optimizer,
        _learning_rates,
        _parallelism,
        _text,
        _sampling,
        _schedule,
    )
    return [fault for rule in rules for fault in rule(config)]


def _columns(config: TrainingSections) -> Iterator[Fault]:
    seen: set[str] = set(BUILT_IN)
    for index, column in enumerate(config.data.params.columns or ()):
        at = ("data", "params", "columns", index)
        if column.name in seen:
            yield (*at, "name"), f"{column.name!r} is already a column; give each a name of its own"
        seen.add(column.name)
        if column.names is not None and column.kind != "label":
            yield (*at, "names"), f"a {column.kind} has no classes; remove it"
        elif column.width is not None and column.kind == "reference":
            yield (*at, "width"), "a reference image has no width; remove it"
        elif column.names is not None and column.width != len(column.names):
            yield (
                (*at, "width"),
                f"is {column.width}, but there are {len(column.names)} names; remove it, or correct the names",
            )
    if config.data.params.columns is None:
        yield from _implied_columns(config)


def _implied_columns(config: TrainingSections) -> Iterator[Fault]:
    taken: set[str] = set(BUILT_IN)
    for name, conditioner in config.model.params.token_conditioners.present.items():
        if conditioner.column is None:
            continue
        if conditioner.column in taken:
            at = ("model", "params", *conditioner_path(name).location, "column")
            yield at, f"{conditioner.column!r} is already a column, of another kind; give this one a name of its own"
        taken.add(conditioner.column)


def _modules(config: TrainingSections) -> Iterator[Fault]:
    params = config.model.params
    for path, module in config.model.conditioned.items():
        at = ("model", "params", *path.location)
        column = column_of(config, path, module)
        fitting = fitting_kinds(config, path)
        if column is None and module.column is None:
            yield at, f"needs a data column of kind {' or '.join(fitting)}; declare one in data.params.columns"
            continue
        if column is None:
            names = ", ".join(column.name for column in columns_of(config)) or "none"
            yield (*at, "column"), f"there is no data column {module.column!r}; the columns are: {names}"
            continue
        if column.kind not in fitting:
            yield (
                (*at, "column"),
                f"column {column.name!r} holds a {column.kind}; {' or '.join(fitting)} is needed here",
            )
        if column.kind == "reference" and params.image_encoder_config is None:
            yield at, "takes reference images, so model.params.image_encoder_config must say what encodes them"
    for name, adapter in params.adapters_config.items():
        at = ("model", "params", *adapter_path(name).location)
        column = column_of(config, adapter_path(name), adapter)
        if adapter.projector.reads_sequence and column is not None and column.kind != "reference":
            message = (
                f"{adapter.projector.target} reads a sequence of image features, column {column.name!r} holds one "
                f"{column.kind} a sample; choose Linear or MLP"
            )
            yield (*at, "projector", "target"), message


def trainable_modules(config: TrainingSections) -> dict[Location, Trainable]:
    """Everything with a `train` flag, by its path below model.params."""
    params = config.model.params
    modules: dict[Location, Trainable] = {("unet_config",): params.unet_config}
    if params.unet_config.lora is not None:
        modules["unet_config", "lora"] = params.unet_config.lora
    modules |= {("text_config", "encoders", i): encoder for i, encoder in enumerate(params.text_config.encoders)}
    if params.image_encoder_config is not None:
        modules["image_encoder_config",] = params.image_encoder_config
    return modules | {path.location: module for path, module in config.model.conditioned.items()}


def _dropouts(config: TrainingSections) -> Iterator[Fault]:
    params = config.model.params
    if params.joint_dropout is None:
        return
    has_text = bool(params.text_config.encoders) or params.pretrained_model_name_or_path is not None
    alone = [module.dropout for module in config.model.conditioned.values()]
    total = sum(alone) + params.joint_dropout + (params.text_config.dropout if has_text else 0.0)
    if total > 1:
        at = ("model", "params", "joint_dropout")
        yield (
            at,
            f"one draw decides for all conditions, and their shares add up to {total:g} of the samples; lower them to 1",
        )


def _trained(config: TrainingSections) -> Iterator[Fault]:
    modules = trainable_modules(config)
    for path, module in modules.items():
        if not module.train and module.learning_rate is not None:
            at = ("model", "params", *path, "learning_rate")
            yield at, "is set for a module that is not trained; set train: true or remove it"
    if config.model.params.unet_config.lora is not None and config.model.params.unet_config.train:
        at = ("model", "params", "unet_config", "lora")
        yield (
            at,
            "trains low-rank weights of a UNet that is itself trained; set train: false for it, or remove lora",
        )
    if not any(module.train for module in modules.values()):
        yield ("model", "params"), "nothing is trained; set train: true for the UNet or add an adapter or conditioner"


def _pipeline(config: TrainingSections) -> Iterator[Fault]:
    params = config.model.params
    for name in ("revision", "variant"):
        if getattr(params, name) is not None and params.pretrained_model_name_or_path is None:
            yield (
                ("model", "params", name),
                "is of pretrained_model_name_or_path, which is not set; set it or remove this",
            )


def _first_stage(config: TrainingSections) -> Iterator[Fault]:
    params, data = config.model.params, config.data.params
    stage, unet = params.first_stage_config, params.unet_config
    channels = data.channels
    built_unet = unet.pretrained is None and params.pretrained_model_name_or_path is None
    built_stage = stage.pretrained is None and params.pretrained_model_name_or_path is None
    made = ""
    if stage.target == "Pixels":
        if stage.pretrained is not None:
            yield ("model", "params", "first_stage_config", "pretrained"), "Pixels has no weights; remove it"
        latents = channels * stage.patch_size**2
        if stage.patch_size > 1:
            made = f" ({channels} for each of the {stage.patch_size} x {stage.patch_size} pixels of a patch)"
    else:
        if stage.patch_size != 1:
            message = f"{stage.target} has no such setting; remove it, or choose target: Pixels"
            yield ("model", "params", "first_stage_config", "patch_size"), message
        if built_stage and stage.params.in_channels != channels:
            yield (
                ("model", "params", "first_stage_config", "params", "in_channels"),
                f"is {stage.params.in_channels}, but data.params.image_mode {data.image_mode} has {channels} channels; set {channels}",
            )
        latents = stage.params.latent_channels
        if not built_stage:
            return
    if built_unet and unet.params.in_channels != latents:
        yield (
            ("model", "params", "unet_config", "params", "in_channels"),
            f"is {unet.params.in_channels}, but the first stage gives {latents} channels{made}; set {latents}",
        )
    if built_unet and unet.params.out_channels != latents:
        yield (
            ("model", "params", "unet_config", "params", "out_channels"),
            f"is {unet.params.out_channels}, but the first stage has {latents} channels{made}; set {latents}",
        )


def _resolution(config: TrainingSections) -> Iterator[Fault]:
    params, resolution = config.model.params, config.data.params.resolution
    if params.pretrained_model_name_or_path is not None or params.unet_config.pretrained is not None:
        return
    multiple = params.unet_config.params.downsampling
    if params.first_stage_config.pretrained is None:
        multiple *= params.first_stage_config.factor
    if resolution % multiple:
        nearest = max(resolution // multiple, 1) * multiple
        message = (
            f"{resolution} is not a multiple of {multiple}, by which first stage and UNet divide it; use {nearest}"
        )
        yield ("data", "params", "resolution"), message
    buckets = config.data.params.aspect_buckets
    if buckets is not None and (buckets.step % multiple or buckets.step > resolution):
        message = (
            f"is {buckets.step}, but sizes must be multiples of {multiple}, by which first stage and UNet divide them, and "
            f"at most the resolution {resolution}; use {multiple}"
        )
        yield ("data", "params", "aspect_buckets", "step"), message


def _cache(config: TrainingSections) -> Iterator[Fault]:
    params, stage = config.data.params, config.model.params.first_stage_config
    if params.cache.uri is not None and params.cache.folder is not None:
        message = (
            "the agent moves only what is in the output folder; remove it, or remove cache.uri and share this folder"
        )
        yield ("data", "params", "cache", "folder"), message
    if params.cache.uri is not None and params.cache.mode == "off":
        yield ("data", "params", "cache", "uri"), "nothing is kept with cache.mode off; remove it, or choose auto or on"
    if params.cache.mode == "on" and params.random_crop and stage.target != "Pixels":
        message = (
            "draws a new crop for every reading, and latents of those cannot be kept; set it to false, or cache.mode to "
            "auto, which then keeps text states and image features only"
        )
        yield ("data", "params", "random_crop"), message


_OPTIMIZERS_WITH = {
    "betas": {"AdamW", "AdamW8bit", "Prodigy"},
    "eps": {"AdamW", "AdamW8bit", "Prodigy"},
    "d_coef": {"Prodigy"},
    "safeguard_warmup": {"Prodigy"},
    "clip_threshold": {"Adafactor"},
}


def _optimizer(config: TrainingSections) -> Iterator[Fault]:
    optimization = config.optimization
    target, params = optimization.optimizer.target, optimization.optimizer.params
    at = ("optimization", "optimizer", "params")
    for name, having in _OPTIMIZERS_WITH.items():
        if target not in having and getattr(params, name) != getattr(type(params)(), name):
            yield (*at, name), f"{target} has no such setting; remove it, or choose {' or '.join(sorted(having))}"
    if target != "Prodigy":
        return
    if optimization.learning_rate < 0.1:
        message = f"is {optimization.learning_rate:g}, but Prodigy finds the rate itself and multiplies it by this; set it to 1"
        yield ("optimization", "learning_rate"), message
    for path, module in trainable_modules(config).items():
        if module.learning_rate is not None:
            yield ("model", "params", *path, "learning_rate"), "Prodigy finds one rate for all modules; remove it"


_SCHEDULES_WITH = {"lr_num_cycles": "cosine_with_restarts", "lr_power": "polynomial", "lr_end": "polynomial"}


def _learning_rates(config: TrainingSections) -> Iterator[Fault]:
    optimization = config.optimization
    name = optimization.lr_scheduler
    for field, having in _SCHEDULES_WITH.items():
        if name != having and getattr(optimization, field) != getattr(type(optimization)(), field):
            yield ("optimization", field), f"{name} has no such setting; remove it, or choose lr_scheduler {having}"
    if name == "polynomial" and optimization.lr_end >= optimization.learning_rate:
        message = f"is {optimization.lr_end:g}, and polynomial goes down to it from learning_rate {optimization.learning_rate:g}"
        yield ("optimization", "lr_end"), f"{message}; choose a lower one"


def _parallelism(config: TrainingSections) -> Iterator[Fault]:
    """What cannot be computed on each process's share alone, or has no use for shares."""
    optimization = config.optimization
    if optimization.parallelism != "FSDP":
        return
    at = ("optimization", "parallelism")
    if not config.model.params.unet_config.train:
        yield at, "FSDP shares out the trained UNet, and this one is frozen; use DDP, or set unet_config.train: true"
    if optimization.optimizer.target != "AdamW":
        message = (
            f"FSDP needs an optimizer that treats each number alone, which {optimization.optimizer.target} does not"
        )
        yield at, f"{message}; use AdamW, or DDP"
    if config.model.params.unet_config.compile:
        yield (
            at,
            "FSDP gathers weights between blocks, which compiled blocks do not see; set unet_config.compile: false",
        )
    if optimization.mixed_precision == "fp16":
        yield at, "FSDP does not scale losses as fp16 needs it; use mixed_precision bf16 or no, or DDP"


def _text(config: TrainingSections) -> Iterator[Fault]:
    params = config.model.params
    at = ("model", "params", "text_config", "encoders")
    if params.unet_config.pretrained is None and params.pretrained_model_name_or_path is None:
        unet = params.unet_config.params
        encoders = params.text_config.encoders
        widths = [encoder.params.hidden_size for encoder in encoders if encoder.pretrained is None]
        if len(widths) == len(encoders) and widths and sum(widths) != unet.cross_attention_dim:
            message = (
                f"their hidden sizes add up to {sum(widths)}, but model.params.unet_config.params.cross_attention_dim "
                f"is {unet.cross_attention_dim}; make them equal"
            )
            yield at, message
    if params.pretrained_model_name_or_path is not None and len(params.text_config.encoders) > len(PIPELINE_ENCODERS):
        yield at, "an SDXL pipeline has two text encoders; remove the others, or name every part's source instead"
    for index, encoder in enumerate(params.text_config.encoders):
        if not (encoder.pretrained or encoder.tokenizer or params.pretrained_model_name_or_path):
            yield (*at, index), "needs a tokenizer: name a folder or hub name in `tokenizer`, or load `pretrained`"
    sequence = params.text_config.encoders or params.pretrained_model_name_or_path
    if not sequence and not config.model.conditioned:
        yield (
            ("model", "params"),
            "has no condition at all; add text_config.encoders, a token conditioner or an adapter",
        )


def _sampling(config: TrainingSections) -> Iterator[Fault]:
    known = {*BUILT_IN, *(column.name for column in columns_of(config))}
    kinds = {column.name: column for column in columns_of(config)}
    given = [("rows", index, row) for index, row in enumerate(config.sampling.rows)]
    given += [("columns", index, column) for index, column in enumerate(config.sampling.columns)]
    for part, index, values in given:
        for name, value in values.items():
            at = ("sampling", part, index, name)
            if name not in known:
                yield at, f"there is no data column {name!r}; the columns are: {', '.join(sorted(known))}"
            elif name in kinds and kinds[name].kind == "label":
                width, names = kinds[name].width, kinds[name].names
                if (label := kinds[name].class_of(value)) is None:
                    them = "" if names is None else f" or name: {', '.join(names[:12])}"
                    yield at, f"column {name!r} is a label; give its index{them}"
                elif width is not None and label >= width:
                    yield at, f"label {value} is outside 0..{width - 1}"
            elif name in kinds and isinstance(value, tuple) and kinds[name].width not in (None, len(value)):
                yield at, f"column {name!r} has {kinds[name].width} numbers, not {len(value)}"


def _schedule(config: TrainingSections) -> Iterator[Fault]:
    """What a base's own scheduler may still say is not judged before it is read."""
    params = config.model.params
    given = params.scheduler_config.params
    named = params.pretrained_model_name_or_path or params.unet_config.pretrained
    known = given.filled.model_dump() if named is None else given.model_dump(exclude_none=True)
    at = ("model", "params", "scheduler_config", "params")
    start, end = known.get("beta_start", 0.0), known.get("beta_end", 0.5)
    if start >= end or end >= 1:
        yield (*at, "beta_end"), f"betas must grow from beta_start to below 1, not {start} to {end}"
    if not known.get("rescale_betas_zero_snr"):
        return
    if known.get("prediction_type") == "epsilon":
        yield (
            (*at, "prediction_type"),
            "epsilon says nothing about the image at zero signal-to-noise; use v_prediction with rescale_betas_zero_snr",
        )
    if (spacing := known.get("timestep_spacing", "trailing")) != "trailing":
        message = (
            f"{spacing} never draws from the last step, which rescale_betas_zero_snr makes pure noise; use trailing"
        )
        yield (*at, "timestep_spacing"), message
    if config.optimization.min_snr_gamma is not None and known.get("prediction_type") != "epsilon":
        message = (
            "weighs a step by its signal-to-noise ratio (arXiv 2303.09556), and so by 0 the last step, which "
            "rescale_betas_zero_snr makes pure noise and drawing begins with: it would never be learned; remove one of them"
        )
        yield ("optimization", "min_snr_gamma"), message
