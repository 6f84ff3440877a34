"""What a shell completes: devices, steps, jobs; and what the help shows beside an option."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapter_trainer.forecast.device_speed import KNOWN
from atj import completion
from atj.main import CheckpointCommands, Commands
from tests.cli.support.command import environment


def completed(line: str, folder: Path, **variables: str) -> list[str]:
    """As bash asks for the last word of a line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'atj'; from atj.main import run; run()"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={
            **environment(), "_ATJ_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
            **variables,
        },
    )  # fmt: skip
    return done.stdout.split()


def test_every_device_that_a_plan_knows_is_offered() -> None:
    assert ("this", *KNOWN) == completion.DEVICES


@pytest.mark.process
def test_a_shell_completes_commands_devices_and_steps(tmp_path: Path) -> None:
    for step in (5, 40, 400):
        (tmp_path / "run" / "node-0" / "output" / f"checkpoint-{step}").mkdir(parents=True)
    assert "init" in completed("atj in", tmp_path)
    assert completed("atj plan job.yaml --device h", tmp_path) == ["h200", "h100"]
    assert completed("atj checkpoints get run --step 4", tmp_path) == ["400", "40"]


@pytest.mark.process
def test_where_no_cluster_is_found_nothing_is_completed_and_nothing_is_said(tmp_path: Path) -> None:
    assert completed("atj describe ", tmp_path, KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path)) == []


def helps() -> list[tuple[str, str]]:
    os.environ.setdefault("COLUMNS", "80")
    found = []
    for group in (Commands, CheckpointCommands):
        for entry in group.entries:
            command = entry.load()
            with command.make_context(entry.name, [], resilient_parsing=True) as context:
                found.append(
                    (entry.name, "\n".join(_shown(parameter, context) for parameter in command.get_params(context)))
                )
    return found


def _shown(parameter: object, context: object) -> str:
    return str(parameter.display_type_rich(ctx=context))  # type: ignore[attr-defined]


def test_no_help_shows_the_types_of_python_beside_an_option() -> None:
    for name, shown in helps():
        for word in ("<bool>", "<int>", "<int range>", "<float range>"):
            assert word not in shown, name


def test_no_help_loses_what_stands_in_angle_brackets() -> None:
    """Markdown takes it for HTML."""
    for group in (Commands, CheckpointCommands):
        for entry in group.entries:
            command = entry.load()
            texts = [command.help or "", *(getattr(each, "help", None) or "" for each in command.params)]
            assert not [text for text in texts if "<" in text], entry.name
