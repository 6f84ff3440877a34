"""`atj plan`: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest
import yaml

from adapter_trainer.forecast.device_speed import KNOWN
from atj.errors import CommandError
from atj.machine.plan import plan_command, remedy
from atj.output_format import OutputFormat
from tests.trainer.support import tiny


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    return tiny.write_settings(tmp_path / "training.yaml", tiny.settings(tiny.write_data(tmp_path / "data")))


def test_a_plan_says_memory_speed_and_time(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_command(configuration, device="l4", efficiency=0.4, samples=None)
    said = capsys.readouterr().out
    for expected in ("activations", "together", "NVIDIA L4", "images a second", "for 3 steps of 4 images"):
        assert expected in said


def test_steps_of_epochs_follow_from_the_data(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = yaml.safe_load(configuration.read_text(encoding="utf-8"))
    given["optimization"] = {"train_batch_size": 4, "num_train_epochs": 2}
    tiny.write_settings(configuration, given)
    plan_command(configuration, device="l4", efficiency=0.4, samples=None)
    assert "for 6 steps of 4 images" in capsys.readouterr().out
    plan_command(configuration, device="l4", efficiency=0.4, samples=400)
    assert "for 200 steps of 4 images" in capsys.readouterr().out


def test_a_folder_counts_as_often_as_its_name_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "data" / "photos" / "4_cat"
    photos.mkdir(parents=True)
    for number in range(3):
        (photos / f"{number}.png").touch()
    params = {"token_conditioners": {"label_to_token": None}, "adapters_config": {}}
    given = tiny.settings(
        tmp_path / "data",
        {"data": {"params": {"pairs_file_path": "photos", "columns": []}}, "model": {"params": params}},
    )
    given["model"]["params"]["text_config"] = {"encoders": [tiny.text_encoder(tmp_path / "tokenizer")]}
    given["optimization"] = {"train_batch_size": 4, "num_train_epochs": 2}
    plan_command(tiny.write_settings(tmp_path / "t.yaml", given), device="l4", efficiency=0.4, samples=None)
    assert "for 6 steps of 4 images" in capsys.readouterr().out


def test_an_unknown_device_is_refused_with_those_that_are_known(configuration: Path) -> None:
    known = ", ".join(KNOWN)
    with pytest.raises(CommandError, match=f"--device abacus: not known; choose this or one of {known}"):
        plan_command(configuration, device="abacus", efficiency=0.4, samples=None)


def test_what_does_not_fit_is_said_with_the_remedy(tmp_path: Path) -> None:
    params = {
        "pretrained_model_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0",
        "adapters_config": {"ip": {}},
    }
    params["image_encoder_config"] = {"pretrained": "h94/IP-Adapter"}
    file = tiny.write_settings(tmp_path / "sdxl.yaml", {"model": {"params": params}})
    with pytest.raises(
        CommandError, match=r"do not fit into the 17\.2 GB of NVIDIA T4: set optimization.mixed_precision"
    ):
        plan_command(file, device="t4", efficiency=0.4, samples=10)


def test_the_processes_of_a_job_share_out_a_trained_unet_under_fsdp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tiny.settings(changes={"optimization": {"parallelism": "FSDP"}})
    job = {
        "apiVersion": "adaptertraining.dev/v1alpha1", "kind": "AdapterTrainingJob", "metadata": {"name": "tiny"},
        "spec": {"nodes": 4, "output": {"s3": {"uri": "s3://checkpoints/tiny"}}, "training": training},
    }  # fmt: skip
    plan_command(tiny.write_settings(tmp_path / "job.yaml", job), device="l4", efficiency=0.4, samples=None)
    assert "gathered from other processes" in capsys.readouterr().out


def test_who_trains_a_unet_on_several_processes_is_told_that_they_can_share_it() -> None:
    config = tiny.configuration(tiny.settings())
    assert "set optimization.parallelism to FSDP" in remedy(config, world_size=2)
    assert "FSDP" not in remedy(config, world_size=1)


def test_widths_of_columns_and_their_number_are_read_off_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.write_data(tmp_path / "data")
    columns = [{"name": "digit", "kind": "label"}, {"name": "shape", "kind": "vector"}]
    changes = {
        "model": {"params": {"token_conditioners": {"embed_to_token": {"column": "shape"}}}},
        "data": {"params": {"columns": columns}},
        "optimization": {"max_train_steps": None, "num_train_epochs": 4},
    }
    elsewhere = tiny.write_settings(tmp_path / "there.yaml", tiny.settings(tmp_path / "elsewhere", changes))
    plan_command(elsewhere, device="l4", efficiency=0.4, samples=None)
    assert "'shape' is 1280 wide" in capsys.readouterr().out
    plan_command(elsewhere, device="l4", efficiency=0.4, samples=None, data=data)
    said = capsys.readouterr().out
    assert "Assumed" not in said
    assert "for 11 steps of 4 images" in said


def test_a_plan_for_programs_has_bytes_seconds_and_what_was_assumed(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_command(configuration, device="l4", efficiency=0.4, samples=None, output=OutputFormat.json)
    found = json.loads(capsys.readouterr().out)
    assert found["fits"]
    assert found["bytes"] == max(sum(parts.values()) for parts in found["phases"].values())
    assert found["seconds"] == pytest.approx(3 * found["secondsPerStep"])
    assert (found["steps"], found["samples"], found["imagesPerStep"]) == (3, 11, 4)
