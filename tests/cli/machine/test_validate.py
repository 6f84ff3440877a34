"""`atj validate` names every fault with its path, line and remedy."""

import json
import re
from pathlib import Path

import pytest
import typer

from adapter_api.document import InvalidDocument
from adapter_trainer.errors import InvalidData
from atj.machine.validate import validate_command
from atj.output_format import OutputFormat
from tests.cli.support.command import Atj
from tests.trainer.support import tiny

JOB = """\
apiVersion: adaptertraining.dev/v1alpha1
kind: AdapterTrainingJob
metadata:
  name: digits
spec:
  nodes: 2
  output:
    s3: {uri: s3://checkpoints/digits}
  training:
    model:
      params:
        token_conditioners:
          label_to_token: {}
    data:
      params: {resolution: 64}
    optimization: {max_train_steps: 10}
"""


def test_valid_job_is_summed_up_in_one_line(atj: Atj, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    result = atj("validate", file)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"{file}: valid AdapterTrainingJob digits: 2 x 1 processes, 10 steps, output s3://checkpoints/digits"
    ]
    assert "Note: model.params.unet_config: names nothing to load, so that all 2.57 billion weights" in result.stderr


def test_every_fault_is_named_with_its_path_and_line(atj: Atj, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB.replace("nodes: 2", "nodes: 0").replace("resolution: 64", "resolutoin: 64"))
    result = atj("validate", file)
    assert result.returncode == 2
    assert not result.stdout
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{file}:6: spec.nodes: ")
    assert second.startswith(f"{file}:15: spec.training.data.params.resolutoin: ")


def test_bare_training_configuration_is_accepted(atj: Atj, tmp_path: Path) -> None:
    file = tmp_path / "training.yaml"
    file.write_text("model: {params: {token_conditioners: {label_to_token: {}}}}\ndata: {params: {resolution: 64}}\n")
    result = atj("validate", file)
    assert result.returncode == 0, result.stderr
    assert "valid training configuration" in result.stdout


@pytest.mark.parametrize("content", ["kind: Pod\n", "spec: {}\n"], ids=["another kind", "no kind"])
def test_file_that_looks_like_a_job_is_held_to_be_one(atj: Atj, tmp_path: Path, content: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    result = atj("validate", file)
    assert result.returncode == 2
    assert "metadata: is required" in result.stderr


def training(tmp_path: Path, data: Path, changes: dict[str, object] | None = None) -> Path:
    return tiny.write_settings(tmp_path / "training.yaml", tiny.settings(data, changes))


def refused(file: Path, data: Path | None = None) -> str:
    with pytest.raises((InvalidDocument, InvalidData)) as found:
        validate_command(file, data=data)
    return str(found.value)


def test_data_that_are_here_are_opened_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate_command(training(tmp_path, tiny.write_data(tmp_path / "data")))
    said = capsys.readouterr()
    assert said.out.splitlines()[1] == (
        f"{tmp_path / 'data'}: 11 samples, digit (label of 3 classes), shape (vector of 5 numbers)"
    )
    assert not said.err


def test_data_that_are_elsewhere_are_said_not_to_have_been_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = training(tmp_path, tmp_path / "elsewhere")
    validate_command(file)
    assert "The data were not opened" in capsys.readouterr().err
    validate_command(file, data=tiny.write_data(tmp_path / "copy"))
    assert f"{tmp_path / 'copy'}: 11 samples" in capsys.readouterr().out
    assert "is not a folder" in refused(file, tmp_path / "elsewhere")


def test_every_fault_of_the_table_is_named_with_its_line(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    lines = (data / "train.txt").read_text().splitlines()
    lines[1] = lines[1].replace("1.png", "gone.png")
    lines[2] = lines[2].replace("\t2\t", "\t7\t")
    lines[3] = lines[3].rpartition("\t")[0]
    (data / "train.txt").write_text("\n".join(lines))
    found = refused(training(tmp_path, data)).splitlines()
    assert found[0] == f"{data / 'train.txt'}:2: image: gone.png does not exist in {data}"
    assert found[1] == f"{data / 'train.txt'}:3: digit: label 7 is outside 0..2"
    assert found[2].startswith(f"{data / 'train.txt'}:4: has 3 tab-separated fields, not 4")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": {"params": {"pairs_file_path": "gone.txt"}}}, r"data\.params\.pairs_file_path: .*gone\.txt cannot be read"),
        ({"evaluation": {"pairs_file_path": "gone.txt"}}, r"evaluation\.pairs_file_path: .*gone\.txt cannot be read"),
        (
            {"data": {"params": {"columns": [{"name": "digit", "kind": "label"}]}}},
            r"train\.txt:1: has 4 tab-separated fields, not 3",
        ),
        (
            {
                "data": {"params": {"columns": [{"name": "digit", "kind": "label"}, {"name": "shape", "kind": "vector"}]}},
                "sampling": {"rows": [{"digit": 2}, {"digit": 3}]},
            },
            r"training\.yaml:\d+: sampling\.rows\[1\]\.digit: label 3 is outside 0\.\.2",
        ),
        (
            {"model": {"params": {"adapters_config": {"style": {"column": "shape", "layers": ["up_block.0", "*"]}}}}},
            r"training\.yaml:\d+: model\.params\.adapters_config\.style\.layers\[0\]: 'up_block\.0' matches no cross-attention",
        ),
    ],
    ids=["table", "held-out", "columns", "labels", "layers"],
)  # fmt: skip
def test_what_does_not_fit_the_data_or_the_network_is_named(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    assert re.search(expected, refused(training(tmp_path, tiny.write_data(tmp_path / "data"), changes)))


def test_pictures_to_draw_from_must_be_there(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    image_encoder = {"train": True, "params": {"image_size": 8, "patch_size": 4}}
    changes = {
        "model": {"params": {"image_encoder_config": image_encoder, "adapters_config": {"style": {}}}},
        "sampling": {"rows": [{"image": str(data / "1.png")}, {"image": "gone.png"}]},
    }
    found = refused(training(tmp_path, data, changes))
    assert (
        "sampling.rows[1].image: gone.png does not exist, neither in data.params.data_root_path nor from here" in found
    )
    assert "rows[0]" not in found


def test_vectors_of_different_lengths_are_found_without_a_width(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    (data / "train.txt").write_text((data / "train.txt").read_text() + "0.png\tone more\t1\t1 2\n")
    columns = [{"name": "digit", "kind": "label"}, {"name": "shape", "kind": "vector"}]
    found = refused(training(tmp_path, data, {"data": {"params": {"columns": columns}}}))
    assert "train.txt:12: shape: has 2 numbers, line 1 has 5" in found


def test_what_is_drawn_by_columns_is_checked_as_the_trainer_checks_it(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    columns = [{"name": "digit", "kind": "label"}, {"name": "shape", "kind": "vector"}]
    sampling = {"rows": [{}], "columns": [{"digit": 2}, {"digit": 3}, {"shape": [1.0]}]}
    found = refused(training(tmp_path, data, {"data": {"params": {"columns": columns}}, "sampling": sampling}))
    assert "sampling.columns[1].digit: label 3 is outside 0..2" in found
    assert "sampling.columns[2].shape: has 1 numbers, not 5" in found
    assert "columns[0]" not in found


@pytest.mark.parametrize("verify", ["decode", "open"])
def test_a_broken_picture_is_named_as_the_trainer_would_name_it(tmp_path: Path, verify: str) -> None:
    data = tiny.write_data(tmp_path / "data")
    whole = (data / "4.png").read_bytes()
    (data / "4.png").write_bytes(whole[:-30] if verify == "decode" else b"no picture")
    found = refused(training(tmp_path, data, {"data": {"params": {"verify": verify}}}))
    assert found.startswith(f"{data / 'train.txt'}:5: image: 4.png ")


def test_without_pillow_everything_but_the_files_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.write_data(tmp_path / "data")
    monkeypatch.setattr("atj.machine.data_checks.can_open_files", lambda: False)
    (data / "4.png").write_bytes(b"no picture")
    validate_command(training(tmp_path, data, {"sampling": {"rows": [{"digit": 2}]}}))
    assert "digit: label 3 is outside 0..2" in refused(training(tmp_path, data, {"sampling": {"rows": [{"digit": 3}]}}))


def test_a_job_s_own_folder_must_be_there_when_nothing_else_brings_data(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB.replace("resolution: 64", "resolution: 64, data_root_path: photoz"))
    assert "photoz is not a folder here, and no other source of data is set" in refused(file)


def test_programs_get_faults_and_counts_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = training(tmp_path, tiny.write_data(tmp_path / "data"))
    validate_command(file, output=OutputFormat.json)
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["data"]["samples"], found["faults"]) == (True, 11, [])
    file.write_text("data: {params: {resolutoin: 8}}\n")
    with pytest.raises(typer.Exit) as ended:
        validate_command(file, output=OutputFormat.json)
    assert ended.value.exit_code == 2
    found = json.loads(capsys.readouterr().out)
    assert found["faults"][0]["path"] == "data.params.resolutoin"
    assert found["faults"][0]["line"] == 1


def test_of_several_objects_in_a_file_the_job_is_taken_and_the_others_are_named(atj: Atj, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        f"kind: Secret\nmetadata: {{name: keys}}\n---\n{JOB.replace('  name: digits', '  generateName: digits-')}---\n"
    )
    result = atj("validate", file)
    assert result.returncode == 0, result.stderr
    assert f"{file}: valid AdapterTrainingJob digits-xxxxx:" in result.stdout
    assert f"Note: {file} also holds Secret keys (line 1), which is left alone" in result.stderr.replace("\n", " ")


def test_parts_of_a_gpu_that_stay_idle_are_noted(atj: Atj, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB.replace("  nodes: 2", "  resources: {limits: {nvidia.com/mig-1g.10gb: 2}}"))
    assert "1 of 2 stays idle" in atj("validate", file).stderr
