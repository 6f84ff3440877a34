"""`atj export` copies what pipelines load, and says why there is nothing to copy."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from atj.errors import CommandError
from atj.main import app

LOADS = {"name": "look", "file": "ip_adapter.safetensors", "diffusers": "loads"}
ODD = {"name": "odd", "file": None, "diffusers": "projector.params.depth is 6; a resampler loads with 4"}


def checkpoint(folder: Path, adapters: list[dict[str, Any]], lora: str | None = None) -> Path:
    folder.mkdir()
    record = {"adapters": adapters, "lora": lora}
    (folder / "export.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "README.md").write_text("# A checkpoint", encoding="utf-8")
    for name in ("ip_adapter.safetensors", "pytorch_lora_weights.safetensors", "optimizer.safetensors"):
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def exported(folder: Path, to: Path) -> str:
    """What the command says; raises what it refuses with."""
    result = CliRunner().invoke(app, ["export", str(folder), "--to", str(to)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_files_for_pipelines_are_copied_and_nothing_else(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint-2", [LOADS, ODD], "pytorch_lora_weights.safetensors")
    said = exported(folder, tmp_path / "to")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()}
    assert set(copied) == {"ip_adapter.safetensors", "pytorch_lora_weights.safetensors", "export.json", "README.md"}
    assert copied["ip_adapter.safetensors"] == (folder / "ip_adapter.safetensors").read_bytes()
    assert "ip_adapter.safetensors, pytorch_lora_weights.safetensors; README.md says how to load them" in said


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ([ODD], "holds no file for pipelines: odd: projector.params.depth is 6; a resampler loads with 4"),
        ([], "holds no file for pipelines: it has neither adapters nor low-rank weights nor"),
        ([{**LOADS, "file": "ip_adapter-gone.safetensors"}], "ip_adapter-gone.safetensors is missing"),
        ([{**LOADS, "file": "../secret"}], "secret is missing"),
        ([{"name": "look"}], "has no export.json that can be read"),
    ],
    ids=["a layout that does not load", "nothing", "a file that is gone", "a name that leads out", "not a record"],
)
def test_what_cannot_be_exported_says_why_and_writes_nothing(
    tmp_path: Path, adapters: list[dict[str, Any]], message: str
) -> None:
    (tmp_path / "secret").write_text("not to be copied", encoding="utf-8")
    folder = checkpoint(tmp_path / "checkpoint-2", adapters)
    with pytest.raises(CommandError, match=re.escape(message)) as caught:
        exported(folder, tmp_path / "to")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "to").exists()


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint-2", [LOADS])
    with pytest.raises(CommandError, match="name an empty folder"):
        exported(folder, folder)


@pytest.mark.parametrize("linked", ["ip_adapter.safetensors", "README.md", "export.json"])
def test_a_link_in_a_checkpoint_is_not_followed(tmp_path: Path, linked: str) -> None:
    folder = checkpoint(tmp_path / "checkpoint-2", [LOADS])
    (tmp_path / "secret").write_bytes((folder / linked).read_bytes())
    (folder / linked).unlink()
    (folder / linked).symlink_to(tmp_path / "secret")
    with pytest.raises(CommandError, match=rf"{linked} is (a link|missing or is not a regular file)"):
        exported(folder, tmp_path / "to")
    assert not (tmp_path / "to").exists()


RECORDS: dict[str, str] = {
    "no text of a file": '{"adapters": [], "lora": 5}',
    "a list for a file": '{"adapters": [], "lora": ["a"]}',
    "a number in an adapter": '{"adapters": [{"name": "a", "file": 7, "diffusers": "x"}], "lora": null}',
    "adapters that are none": '{"adapters": {"a": 1}, "lora": null}',
    "kohya's as an object": '{"adapters": [], "lora": null, "lora_kohya": {"a": 1}}',
    "a NUL": '{"adapters": [], "lora": "a\\u0000b"}',
    "half a character": '{"adapters": [], "lora": "\\ud800"}',
    "conditioners as text": '{"adapters": [], "lora": null, "token_conditioners": "abc"}',
    "conditioners that are patterns": '{"adapters": [], "lora": null, "token_conditioners": ["**"]}',
    "a conditioner above": '{"adapters": [], "lora": null, "token_conditioners": [".."]}',
    "very deep": "[" * 100_000,
    "empty": "",
    "a list": "[]",
}


@pytest.mark.parametrize("text", RECORDS.values(), ids=RECORDS)
def test_whatever_a_record_holds_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    folder = checkpoint(tmp_path / "checkpoint-2", [LOADS])
    (folder / "export.json").write_text(text, encoding="utf-8")
    with pytest.raises(CommandError, match=r"has no export\.json that can be read \(") as caught:
        exported(folder, tmp_path / "to")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("name", ["export.json", "README.md"])
@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "missing"])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    folder = checkpoint(tmp_path / "checkpoint-2", [LOADS])
    (folder / name).unlink()
    if kind == "a named pipe":
        os.mkfifo(folder / name)
    elif kind == "a folder":
        (folder / name).mkdir()
    with pytest.raises(CommandError, match=name.replace(".", r"\.")):
        exported(folder, tmp_path / "to")
    assert not (tmp_path / "to").exists()
