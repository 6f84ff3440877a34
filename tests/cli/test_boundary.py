"""What goes wrong is told in one readable message, and its exit status says whose fault it was."""

from pathlib import Path

import pytest

from atj.boundary import explain
from atj.errors import CommandError, refusal
from tests.cli.support.command import Atj, MakeJob, write_yaml


def test_missing_file_is_one_line_and_code_2(atj: Atj) -> None:
    result = atj("run", "no-such.yaml")
    assert result.returncode == 2
    assert result.stderr == "no-such.yaml: cannot be read: No such file or directory\n"


def test_misspelt_option_is_code_2(atj: Atj) -> None:
    assert atj("run", "job.yaml", "--node", "2").returncode == 2


@pytest.mark.parametrize("command", ["run", "validate", "checkpoints list", "checkpoints get", "sample"])
def test_every_command_explains_itself(atj: Atj, command: str) -> None:
    result = atj(*command.split(), "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout


def test_address_that_is_none_says_what_is_accepted(atj: Atj) -> None:
    result = atj("checkpoints", "list", "nowhere")
    assert result.returncode == 2
    assert result.stderr == "error: nowhere: is neither an s3:// address nor the output folder of an `atj run`\n"


def test_unreachable_endpoint_is_code_1_and_named(atj: Atj, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    result = atj("checkpoints", "list", "s3://bucket/prefix", "--endpoint-url", "http://127.0.0.1:9")
    assert "Traceback" not in result.stderr
    assert "s3://bucket/prefix" in result.stderr
    assert result.returncode in (1, 2)


def test_claim_is_refused_with_its_line_and_what_to_do(atj: Atj, tmp_path: Path, job: MakeJob) -> None:
    plain = job("claim", steps=1, save_steps=1)
    plain["spec"]["data"] = {"pvc": {"claimName": "digits"}}
    result = atj("run", write_yaml(tmp_path / "job.yaml", plain), "--output", tmp_path / "out")
    assert result.returncode == 2
    assert ": spec.data.pvc: " in result.stderr
    assert "spec.training.data.params.data_root_path" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(CommandError("it failed"), 1, id="what failed"),
        pytest.param(refusal("change it"), 2, id="what the user got wrong"),
        pytest.param(PermissionError(13, "Permission denied", "/root/x"), 1, id="the operating system's"),
        pytest.param(KeyError("surprise"), 1, id="unforeseen"),
    ],
)
def test_error_becomes_a_message_and_a_code(capsys: pytest.CaptureFixture[str], error: Exception, code: int) -> None:
    assert explain(error) == code
    assert capsys.readouterr().err.startswith("error: ")


def test_traceback_is_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    explain(KeyError("surprise"))
    assert "KeyError('surprise')" not in capsys.readouterr().err
    explain(KeyError("surprise"), debug=True)
    assert capsys.readouterr().err.startswith("KeyError")
