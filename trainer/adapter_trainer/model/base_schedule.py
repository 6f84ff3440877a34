"""The noise schedule that a base was trained with, read from its own `scheduler/` or its single file.

A base that predicts velocity and is trained as if it predicted noise has a loss that looks well, and draws nothing.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
from pydantic import ValidationError

from adapter_api.consistency import inconsistencies
from adapter_api.model import DiffusionSchedule, SchedulerParams
from adapter_api.sources import is_single_file, with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import sources

FIELD = "model.params.scheduler_config.params"
_OF_SAMPLING = frozenset({"timestep_spacing", "steps_offset"})
"""Where sampling looks, which another sampler may do otherwise; the rest is what the base has learned."""
_FOREIGN = ("EDM", "FlowMatch")
"""Beginnings of scheduler classes that give samples noise in another way than by betas."""
_FOREIGN_SWITCHES = ("use_flow_sigmas", "trained_betas")


def resolved(config: TrainingConfig, models: Path | None, show: Callable[[str], None]) -> TrainingConfig:
    """The configuration with every number of the schedule in it: as set, else the base's, else SDXL's.

    Args:
        config: As the user wrote it.
        models: Folder that models have been staged to from object storage.
        show: Takes a line on where the schedule comes from, if that is not the configuration.

    Raises:
        InvalidConfig: The base was made with another schedule than the one that is set, or with one that cannot be
            trained here; or what it has does not go with the rest of the configuration.
    """
    local = with_pipeline_sources(sources.with_local_models(config, models).model.params)
    named = with_pipeline_sources(config.model.params).unet_config.pretrained
    given = config.model.params.scheduler_config.params
    found = None
    if local.unet_config.pretrained is not None:
        try:
            found = sources.scheduler_of(local.unet_config)
        except InvalidConfig:
            if given.prediction_type is None:
                raise
    if found is None:
        if named is not None and is_single_file(named) and given.prediction_type is None:
            show(f"{FIELD}.prediction_type: {named} does not say what it predicts; epsilon is assumed, as for SDXL")
        return _with(config, SchedulerParams.model_validate(given.filled.model_dump()))
    whose = f"{named}'s own scheduler"
    base = schedule_of(found, whose)
    is_whole = config.model.params.unet_config.pretrained is None  # the pipeline's, not a part that somebody chose
    filled = chosen(given, base, whose, show, refuses=is_whole)
    result = _with(config, filled)
    if faults := inconsistencies(result):
        location, message = faults[0]
        raise InvalidConfig(f"{'.'.join(map(str, location))}: {message} (the schedule is that of {whose})")
    return result


def schedule_of(found: Mapping[str, Any], whose: str) -> DiffusionSchedule:
    """PURE: the schedule that a `scheduler_config.json` of diffusers means: what it does not say is its class's default.

    Raises:
        InvalidConfig: it gives noise in a way that is not trained here.
    """
    kind = str(found.get("_class_name", ""))
    if kind.startswith(_FOREIGN) or any(found.get(switch) for switch in _FOREIGN_SWITCHES):
        switch = next((name for name in _FOREIGN_SWITCHES if found.get(name)), None)
        raise InvalidConfig(
            f"{FIELD}: {whose} is {kind or 'of no class'}{'' if switch is None else f' with {switch}'}, which gives noise in "
            "another way than SDXL's betas, and the base with it; choose a base that was trained as SDXL was"
        )
    stated = {**_defaults_of(kind), **found}
    known = {name: stated[name] for name in DiffusionSchedule.model_fields if stated.get(name) is not None}
    try:
        return DiffusionSchedule.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidConfig(
            f"{FIELD}.{name}: {whose} has {known[name]!r}, which is not trained here ({first['msg']}); choose another base"
        ) from None


def _defaults_of(kind: str) -> dict[str, Any]:
    scheduler = getattr(diffusers, kind, None) if kind.endswith("Scheduler") else None
    if not inspect.isclass(scheduler) or not issubclass(scheduler, diffusers.SchedulerMixin):
        return {}
    parameters = inspect.signature(scheduler.__init__).parameters
    stated = {name: each.default for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
    return {name: stated[name] for name in DiffusionSchedule.model_fields if name in stated}


def chosen(
    given: SchedulerParams, base: DiffusionSchedule, whose: str, show: Callable[[str], None], *, refuses: bool
) -> SchedulerParams:
    """What is set, with the base's where nothing is.

    Args:
        given: As the user set it.
        base: As the base has it.
        whose: Where that stands, for people.
        show: Takes what is worth knowing.
        refuses: Whether what is set must not contradict the base.

    Raises:
        InvalidConfig: It does; the message has both values.
    """
    ours, theirs = given.model_dump(exclude_none=True), base.model_dump()
    unlike = [name for name in ours if name not in _OF_SAMPLING and ours[name] != theirs[name]]
    if unlike and refuses:
        raise InvalidConfig(
            f"{FIELD}.{unlike[0]}: is {ours[unlike[0]]}, but {whose} has {theirs[unlike[0]]}: so was the base trained, and "
            "with another it draws nothing; remove the field, or, if the base is to learn another, name unet_config.pretrained"
        )
    for name in unlike:
        show(f"{FIELD}.{name}: {ours[name]} as set; {whose} has {theirs[name]}, which the base has to unlearn")
    filled = {**theirs, **ours}
    if filled["rescale_betas_zero_snr"] and "timestep_spacing" not in ours:
        filled["timestep_spacing"] = "trailing"  # others never draw from the step that is pure noise
    usual = DiffusionSchedule().model_dump()
    read = [f"{name} {filled[name]}" for name in filled if name not in ours and filled[name] != usual[name]]
    if read:
        show(f"noise schedule from {whose}: {', '.join(read)}")
    return SchedulerParams.model_validate(filled)


def _with(config: TrainingConfig, params: SchedulerParams) -> TrainingConfig:
    model = config.model.params
    scheduler = model.scheduler_config.model_copy(update={"params": params})
    changed = config.model.model_copy(update={"params": model.model_copy(update={"scheduler_config": scheduler})})
    return config.model_copy(update={"model": changed})
