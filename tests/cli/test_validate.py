"""`atj validate` names every fault with its path, line and remedy."""

from pathlib import Path

import pytest

from tests.cli.support.command import Atj

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
