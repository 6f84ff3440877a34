"""What a command imports, and what the help shows of commands that are not imported yet."""

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.core import TyperGroup

from atj.deferred import DeferredGroup, Entry
from atj.main import CheckpointCommands, Commands, app
from tests.support.repository import REPOSITORY

HEAVY = {
    "boto3", "botocore", "torch", "diffusers", "transformers", "accelerate", "numpy", "kubernetes", "aiohttp", "kopf",
}  # fmt: skip
WHAT_TRAINS = HEAVY - {"numpy"}
"""Pictures are opened with NumPy."""
LIST_MODULES = "import sys; sys.stderr.write('\\n'.join(sys.modules))"


def imported(*arguments: str) -> set[str]:
    """Packages at the top that `atj` has imported when it ends."""
    program = f"import atexit\natexit.register(lambda: exec({LIST_MODULES!r}))\nfrom atj.main import run\nrun()"
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return set(done.stderr.split())


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("checkpoints", "--help"),
        ("validate", str(REPOSITORY / "configs" / "example.yaml")),
        ("validate", str(REPOSITORY / "configs" / "digits.yaml")),
        ("explain", "spec.training.sampling"),
        ("schema",),
    ],
    ids=["help", "version", "help of a group", "configuration", "job", "explanation", "schema"],
)
def test_what_computes_and_stores_nothing_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not imported(*arguments) & HEAVY


@pytest.mark.process
def test_a_job_is_written_and_its_data_are_opened_without_what_trains_on_them(tmp_path: Path) -> None:
    job = str(tmp_path / "job.yaml")
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "0.png")
    assert not imported("init", "--data", str(tmp_path / "data"), "--for", "label", "--out", job) & WHAT_TRAINS
    assert not imported("validate", job) & WHAT_TRAINS


@pytest.mark.process
@pytest.mark.parametrize("arguments", [("--help",), ("--version",)], ids=["help", "version"])
def test_help_and_version_build_no_models(arguments: tuple[str, ...]) -> None:
    assert not {"pydantic", "yaml", "adapter_api.job"} & imported(*arguments)


@pytest.mark.process
def test_a_training_configuration_is_checked_without_the_models_of_a_job_and_what_draws_tables() -> None:
    assert not {"adapter_api.job", "rich"} & imported("validate", str(REPOSITORY / "configs" / "example.yaml"))


@pytest.mark.process
def test_no_plugin_of_pydantic_s_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin-1.dist-info").mkdir()
    (tmp_path / "plugin-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (tmp_path / "plugin-1.dist-info" / "entry_points.txt").write_text("[pydantic]\nplugin = a_pydantic_plugin\n")
    (tmp_path / "a_pydantic_plugin.py").write_text("new_schema_validator = lambda *_, **__: (None, None, None)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "a_pydantic_plugin" not in imported("validate", str(REPOSITORY / "configs" / "example.yaml"))
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "")  # the user's own word counts
    assert "a_pydantic_plugin" in imported("validate", str(REPOSITORY / "configs" / "example.yaml"))


@pytest.mark.parametrize("entry", [*Commands.entries, *CheckpointCommands.entries], ids=lambda entry: entry.function)
def test_the_help_of_a_group_shows_the_first_lines_of_its_commands(entry: Entry) -> None:
    module, _, name = entry.function.partition(":")
    documentation = inspect.getdoc(getattr(import_module(module), name)) or ""
    assert entry.summary == " ".join(documentation.split("\n\n")[0].split())
    assert entry.load().help.startswith(documentation.split("\n\n")[0])
    assert entry.load().name == entry.name


@pytest.mark.parametrize("group", [Commands, CheckpointCommands])
def test_every_command_of_a_module_stands_in_the_table(group: type[DeferredGroup]) -> None:
    modules = {import_module(entry.function.partition(":")[0]) for entry in group.entries}
    functions = {
        f"{module.__name__}:{name}"
        for module in modules
        for name, member in inspect.getmembers(module, inspect.isfunction)
        if name.endswith("_command") and member.__module__ == module.__name__
    }
    assert {entry.function for entry in group.entries} == functions


def test_a_command_s_own_parameters_are_those_that_are_parsed() -> None:
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    with commands.make_context("atj", ["run", "job.yaml"]) as context:
        name, command, rest = commands.resolve_command(context, ["run", "job.yaml"])
    assert (name, rest) == ("run", ["job.yaml"])
    assert command is not None
    assert {parameter.name for parameter in command.params} >= {"file", "nodes", "output"}
