"""A base is trained with the noise schedule that it was made with, whoever wrote its scheduler down."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from adapter_api.document import InvalidDocument
from adapter_api.model import DiffusionSchedule
from adapter_api.training import TrainingConfig
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import base_schedule
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.training import setup
from tests.trainer.support import runs, tiny

SDXL = {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
    "use_karras_sigmas": False,
}  # fmt: skip
"""As stabilityai/stable-diffusion-xl-base-1.0 has it."""
VELOCITY = {**SDXL, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def base(folder: Path, scheduler: dict[str, Any] | None) -> Path:
    """A pipeline's UNet and scheduler."""
    AdapterModel.of(tiny.configuration(tiny.settings())).unet.save_pretrained(folder / "unet")
    if scheduler is not None:
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    return folder


def given(folder: Path, schedule: dict[str, Any] | None = None, **more: Any) -> TrainingConfig:
    params = {
        "unet_config": {"pretrained": str(folder), "subfolder": "unet", "train": True},
        "scheduler_config": {"params": schedule or {}},
    }
    return tiny.configuration(tiny.settings(changes={"model": {"params": tiny.merged(params, more)}}))


def piped(folder: Path, schedule: dict[str, Any] | None = None, **optimization: Any) -> TrainingConfig:
    """Named as a whole pipeline."""
    changes = {
        "model": {
            "params": {
                "pretrained_model_name_or_path": str(folder),
                "unet_config": {"train": True},
                "scheduler_config": {"params": schedule or {}},
            }
        },
        "optimization": optimization,
    }
    return tiny.configuration(tiny.settings(changes=changes))


def schedule_of(config: TrainingConfig) -> tuple[DiffusionSchedule, list[str]]:
    said: list[str] = []
    found = base_schedule.resolved(config, None, said.append).model.params.scheduler_config.params
    assert None not in found.model_dump().values()
    return found.filled, said


def test_sdxls_own_scheduler_is_what_is_taken_without_one(tmp_path: Path) -> None:
    assert schedule_of(piped(base(tmp_path / "with", SDXL))) == (DiffusionSchedule(), [])
    assert schedule_of(piped(base(tmp_path / "without", None))) == (DiffusionSchedule(), [])


def test_a_base_that_predicts_velocity_is_trained_to(tmp_path: Path) -> None:
    folder = base(tmp_path, VELOCITY)
    found, said = schedule_of(piped(folder))
    assert (found.prediction_type, found.rescale_betas_zero_snr) == ("v_prediction", True)
    assert found.timestep_spacing == "trailing"
    assert len(said) == 1
    assert said[0] == (
        f"noise schedule from {folder}'s own scheduler: prediction_type v_prediction, timestep_spacing trailing, "
        "rescale_betas_zero_snr True"
    )


@pytest.mark.parametrize(
    ("scheduler", "schedule", "message"),
    [
        (VELOCITY, {"prediction_type": "epsilon"}, "prediction_type: is epsilon, but .* has v_prediction"),
        (SDXL, {"beta_end": 0.02}, "beta_end: is 0.02, but .* has 0.012"),
        (SDXL, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
         "rescale_betas_zero_snr: is True, but .* has False"),
    ],
)  # fmt: skip
def test_what_contradicts_the_base_is_refused_with_both_values(
    tmp_path: Path, scheduler: dict[str, Any], schedule: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        schedule_of(piped(base(tmp_path, scheduler), schedule))


def test_a_unet_that_is_named_by_itself_may_learn_another_schedule_and_that_is_said(tmp_path: Path) -> None:
    folder = base(tmp_path, SDXL)
    found, said = schedule_of(given(folder, {"prediction_type": "v_prediction"}))
    assert found.prediction_type == "v_prediction"
    assert len(said) == 1
    assert said[0] == (
        f"model.params.scheduler_config.params.prediction_type: v_prediction as set; {folder}'s own scheduler has epsilon, "
        "which the base has to unlearn"
    )
    assert schedule_of(given(base(tmp_path / "other", VELOCITY)))[0].prediction_type == "v_prediction"


def test_where_drawing_looks_is_everybodys_own(tmp_path: Path) -> None:
    found, _ = schedule_of(piped(base(tmp_path, SDXL), {"timestep_spacing": "linspace", "steps_offset": 0}))
    assert (found.timestep_spacing, found.steps_offset) == ("linspace", 0)


@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "UniPCMultistepScheduler"])
def test_what_a_file_does_not_say_is_its_classs_default(kind: str) -> None:
    theirs = getattr(diffusers, kind)().config
    found = base_schedule.schedule_of({"_class_name": kind}, "it")
    assert found.beta_end == theirs.beta_end
    assert found.beta_schedule == theirs.beta_schedule
    assert found.prediction_type == theirs.prediction_type
    assert found.timestep_spacing == theirs.timestep_spacing


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "is EDMEulerScheduler, which gives noise in another way"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "another way"),
        ({**SDXL, "trained_betas": [0.1, 0.2]}, "with trained_betas"),
        ({**SDXL, "beta_schedule": "sigmoid"}, "beta_schedule: .* has 'sigmoid', which is not trained here"),
        ({**SDXL, "prediction_type": "flow_prediction"}, "prediction_type"),
    ],
)
def test_a_base_that_was_made_in_another_way_is_refused(scheduler: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        base_schedule.schedule_of(scheduler, "it")


def test_what_the_base_brings_has_to_go_with_the_rest(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"optimization\.min_snr_gamma: .* by 0 the last step"):
        schedule_of(piped(base(tmp_path, VELOCITY), min_snr_gamma=5.0))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    base(tmp_path, SDXL)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidConfig, match=r"scheduler_config.json cannot be read"):
        schedule_of(piped(tmp_path))
    assert schedule_of(piped(tmp_path, {"prediction_type": "epsilon"}))[0] == DiffusionSchedule()


@pytest.mark.process
def test_a_checkpoint_has_the_bases_schedule_in_its_configuration_and_resumes(data: Path, tmp_path: Path) -> None:
    folder, output = base(tmp_path / "base", VELOCITY), tmp_path / "output"
    params = {"unet_config": {"pretrained": str(folder), "subfolder": "unet", "train": True}}
    settings = tiny.settings(data, {"model": {"params": params}})
    assert runs.train_here(settings, output) == 0
    assert "prediction_type: v_prediction" in (output / "checkpoint-3" / "training.yaml").read_text(encoding="utf-8")
    assert json.loads((output / "checkpoint-3" / "export.json").read_text())["prediction_type"] == "v_prediction"
    run = setup.prepare(tiny.configuration(settings), setup.RunOptions(output, "latest", lambda _: None))
    assert run.schedule.prediction_type == "v_prediction"
    assert checkpoint_folder.fault_of(output / "checkpoint-3") is None


def test_min_snr_and_a_last_step_of_pure_noise_are_refused_together() -> None:
    schedule = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    changes = {
        "model": {"params": {"scheduler_config": {"params": schedule}}}, "optimization": {"min_snr_gamma": 5.0},
    }  # fmt: skip
    with pytest.raises(InvalidDocument, match=r"min_snr_gamma: .*rescale_betas_zero_snr makes pure noise and drawing"):
        tiny.configuration(tiny.settings(changes=changes))
