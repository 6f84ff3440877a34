"""`atj explain` finds a field however its path is written; `atj schema` is what editors read."""

import json

import pytest

from atj.errors import CommandError
from atj.machine.explain import SchemaOf, explain_command, schema_command


@pytest.mark.parametrize(
    "path",
    [
        "spec.training.data.params.columns[].kind", "spec.training.data.params.columns[2].kind",
        "data.params.columns.kind", "training.data.params.columns[0].kind",
    ],
)  # fmt: skip
def test_a_field_is_found_by_any_spelling_of_its_path(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    explain_command(path)
    first, facts, *_ = capsys.readouterr().out.splitlines()
    assert first == "spec.training.data.params.columns[].kind"
    assert facts.strip() == "label | vector | embedding | reference; required"


def test_a_section_lists_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    explain_command("spec.training.sampling")
    said = capsys.readouterr().out
    assert "\nrows\n" in said
    assert "\nguidance_scale\n" in said
    assert "\nepochs\n" not in said


def test_a_name_of_the_user_s_own_stands_for_any(capsys: pytest.CaptureFixture[str]) -> None:
    explain_command("spec.training.model.params.adapters_config.style.projector")
    said = capsys.readouterr().out
    assert said.startswith("spec.training.model.params.adapters_config.<name>.projector\n")
    assert "\ntarget\n" in said


def test_without_a_path_the_top_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    explain_command("")
    assert [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")] == [
        "apiVersion", "kind", "metadata", "spec", "status",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("spec.training.resolution", r"resolution is at spec\.training\.data\.params\.resolution"),
        ("spec.trainning", "did you mean training"),
        ("qqq", "lists what there is at the top"),
    ],
)
def test_what_is_no_field_is_answered_with_what_is(path: str, answer: str) -> None:
    with pytest.raises(CommandError, match=answer):
        explain_command(path)


def test_the_schema_is_that_of_jobs_or_of_training_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    schema_command(SchemaOf.job)
    assert set(json.loads(capsys.readouterr().out)["properties"]) == {
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
    }
    schema_command(SchemaOf.training)
    assert "optimization" in json.loads(capsys.readouterr().out)["properties"]
