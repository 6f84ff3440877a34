"""`atj run` from end to end in real processes: finish, sample, kill, Ctrl-C, resume, refuse."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.cli.support.command import Atj, MakeJob, Plain, write_yaml
from tests.support.waiting import wait_until

Keep = Callable[[subprocess.Popen[str]], subprocess.Popen[str]]


@pytest.fixture(scope="module")
def finished(atj: Atj, job: MakeJob, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A job's file and the output folder of its finished run on two nodes, beside it the folder for temporary files."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tmp").mkdir()
    atj = replace(atj, variables={"TMPDIR": str(folder / "tmp")})
    file, output = write_yaml(folder / "job.yaml", job("finished", steps=4, save_steps=2, nodes=2)), folder / "out"
    result = atj("run", file, "--output", output)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Newest checkpoint: s3://checkpoints/finished/checkpoint-4" in result.stdout
    return file, output


def test_finished_run_is_known_to_be_complete(atj: Atj, finished: tuple[Path, Path]) -> None:
    file, output = finished
    result = atj("run", file, "--output", output)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("This run is already complete.\n")


def test_a_run_leaves_nothing_in_the_folder_for_temporary_files(finished: tuple[Path, Path]) -> None:
    left = {file.name for file in (finished[1].parent / "tmp").iterdir()}
    assert {name for name in left if not name.startswith("torchinductor_")} == set()  # torch's, one for all that use it


def test_committed_checkpoints_are_listed_from_the_output_folder(atj: Atj, finished: tuple[Path, Path]) -> None:
    result = atj("checkpoints", "list", finished[1], "--output", "json")
    assert result.returncode == 0, result.stderr
    entries = json.loads(result.stdout)
    assert [(entry["step"], entry["uri"]) for entry in entries] == [
        (2, "s3://checkpoints/finished/checkpoint-2"),
        (4, "s3://checkpoints/finished/checkpoint-4"),
    ]
    assert all(entry["files"] > 0 and entry["bytes"] > 0 for entry in entries)


def test_checkpoint_is_fetched_whole_and_drawn_from(atj: Atj, finished: tuple[Path, Path], tmp_path: Path) -> None:
    result = atj("checkpoints", "get", finished[1], "--step", "2", "--to", tmp_path)
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "checkpoint-2" / "manifest.json").read_text())
    assert all((tmp_path / "checkpoint-2" / file["path"]).stat().st_size == file["size"] for file in manifest["files"])
    drawn = atj("sample", tmp_path / "checkpoint-2", "--count", "2", "--steps", "2", "--out", tmp_path / "drawn")
    assert drawn.returncode == 0, drawn.stderr
    names = [f"row-{row}-{column}.png" for row in (1, 2, 3) for column in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == names


def test_folder_that_is_no_checkpoint_is_not_overwritten(atj: Atj, finished: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "precious").touch()
    result = atj("checkpoints", "get", finished[1], "--to", tmp_path)
    assert result.returncode == 2
    assert (tmp_path / "checkpoint-4" / "precious").exists()


def test_step_that_was_never_committed_is_named_with_those_that_were(atj: Atj, finished: tuple[Path, Path]) -> None:
    result = atj("checkpoints", "get", finished[1], "--step", "3")
    assert result.returncode == 2
    assert "committed steps: 2, 4" in result.stderr


@pytest.mark.parametrize("lost", ["node 1's torchrun", "what trainers are forked from"])
def test_lost_process_restarts_the_gang_from_the_last_commit(
    atj: Atj, job: MakeJob, tmp_path: Path, ended: Keep, lost: str
) -> None:
    file, output = write_yaml(tmp_path / "job.yaml", job("lost", steps=400, save_steps=100, nodes=2)), tmp_path / "out"
    command = ended(atj.start("run", file, "--output", output))
    wait_until(
        "checkpoint 100 is committed", lambda: "committed checkpoint 100" in _log(output), state=lambda: _log(output)
    )
    (_torchrun(command, node=1) if lost == "node 1's torchrun" else _fork_server(command)).kill()
    text, _ = command.communicate(timeout=600)
    assert command.returncode == 0, text
    assert re.search(r"Attempt 1 failed: node [01]: train ended with signal SIGKILL", text)
    assert "Restart 1 of 1 from step " in text
    assert "Attempt 2 from the committed checkpoint of step " in text
    assert "Newest checkpoint: s3://checkpoints/lost/checkpoint-400" in text


def test_ctrl_c_saves_commits_and_the_same_command_continues(
    atj: Atj, job: MakeJob, tmp_path: Path, ended: Keep
) -> None:
    plain = job("stopped", steps=100_000, save_steps=100_000)
    file, output = write_yaml(tmp_path / "job.yaml", plain), tmp_path / "out"
    command = ended(atj.start("run", file, "--output", output))
    wait_until("a step is made", lambda: _step(output) > 0)
    refused = atj("run", file, "--output", output)
    assert refused.returncode == 2
    assert "another `atj run` is using this output folder" in refused.stderr
    command.send_signal(signal.SIGINT)
    text, _ = command.communicate(timeout=600)
    assert command.returncode == 130, text
    assert "Newest checkpoint: s3://checkpoints/stopped/checkpoint-" in text
    assert f"To continue: atj run {file} --output {output}" in text
    assert not _processes_of(output)
    _assert_other_configuration_is_refused(atj, plain, tmp_path, output)


def _assert_other_configuration_is_refused(atj: Atj, plain: Plain, folder: Path, output: Path) -> None:
    plain["spec"]["training"]["optimization"]["learning_rate"] = 0.5
    result = atj("run", write_yaml(folder / "other.yaml", plain), "--output", output)
    assert result.returncode == 2, result.stderr
    assert "from the committed checkpoint of step " in result.stdout
    assert "optimization.learning_rate" in result.stderr
    assert "Restart" not in result.stdout


def test_second_ctrl_c_leaves_nothing_running(atj: Atj, job: MakeJob, tmp_path: Path, ended: Keep) -> None:
    file = write_yaml(tmp_path / "job.yaml", job("killed", steps=100_000, save_steps=100_000))
    command = ended(atj.start("run", file, "--output", tmp_path / "out"))
    wait_until("a step is made", lambda: _step(tmp_path / "out") > 0)
    command.send_signal(signal.SIGINT)
    assert command.stdout is not None
    while "Press Ctrl-C again" not in command.stdout.readline():
        assert command.poll() is None
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=600)
    assert command.returncode == 130
    assert not _processes_of(tmp_path / "out")


def test_sigkill_of_the_command_leaves_nothing_running(atj: Atj, job: MakeJob, tmp_path: Path, ended: Keep) -> None:
    file = write_yaml(tmp_path / "job.yaml", job("orphaned", steps=100_000, save_steps=2))
    command = ended(atj.start("run", file, "--output", tmp_path / "out"))
    wait_until("a checkpoint is committed", lambda: "committed" in _log(tmp_path / "out"))
    command.kill()
    wait_until("nothing is left", lambda: not _processes_of(tmp_path / "out"), seconds=20)


@pytest.mark.process
def test_trainers_import_for_themselves_where_nothing_can_be_forked(job: MakeJob, tmp_path: Path) -> None:
    long = tmp_path / ("long" * 25)  # too long a name for a Unix socket
    long.mkdir()
    atj = Atj(tmp_path, {"TMPDIR": str(long)})
    result = atj("run", write_yaml(tmp_path / "job.yaml", job("plain", steps=2, save_steps=2)), "--output", "out")
    assert result.returncode == 0, result.stdout + result.stderr
    assert not (tmp_path / "out" / "logs" / "fork-server.log").exists()


def test_data_that_is_wrong_is_not_tried_again(atj: Atj, job: MakeJob, tmp_path: Path) -> None:
    plain = job("wrong", steps=2, save_steps=1)
    (tmp_path / "train.txt").write_text("missing.png\ta caption\t0\t0 0 0 0 0\n")
    plain["spec"]["training"]["data"]["params"]["data_root_path"] = str(tmp_path)
    result = atj("run", write_yaml(tmp_path / "job.yaml", plain), "--output", tmp_path / "out")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "(InvalidData)" in result.stderr
    assert "missing.png" in result.stderr
    assert "Restart" not in result.stdout


def _log(output: Path) -> str:
    file = output / "logs" / "node-0-sync.log"
    return file.read_text() if file.exists() else ""


def _step(output: Path) -> int:
    try:
        return int(json.loads((output / "node-0/output/progress.json").read_text())["step"])
    except (OSError, ValueError, KeyError):
        return 0


def _torchrun(command: subprocess.Popen[str], node: int) -> psutil.Process:
    for child in psutil.Process(command.pid).children():
        if "torch.distributed.run" in child.cmdline() and child.environ()["JOB_COMPLETION_INDEX"] == str(node):
            return child
    raise AssertionError(f"node {node} does not run")


def _fork_server(command: subprocess.Popen[str]) -> psutil.Process:
    (server,) = (
        child for child in psutil.Process(command.pid).children() if "adapter_trainer.fork_server" in child.cmdline()
    )
    return server


def _processes_of(output: Path) -> list[psutil.Process]:
    """Live processes whose command line names a folder of the run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(output) in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
