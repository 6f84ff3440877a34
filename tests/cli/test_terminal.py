"""What others wrote reaches a terminal as text: nothing in it moves a cursor, sets a title, or is markup."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from atj.cluster.description import description
from atj.cluster.table import job_table
from atj.terminal import cell, errors, results, say, say_error, say_result, shown

NOW = datetime(2026, 12, 1, tzinfo=UTC)
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b2J[bold red]x[/]\u202egnp"
ALLOWED = set("\n\t")


def printed(value: Any) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False, force_terminal=False)
    say(console, value) if isinstance(value, str) else console.print(value)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def is_harmless(text: str) -> bool:
    return all(character in ALLOWED or character.isprintable() for character in text)


def test_what_acts_on_a_terminal_is_written_out_and_colours_are_left_out() -> None:
    assert shown("\x1b[31mred\x1b[0m \x1b[2J\x07\x7f\r\nnext 数字三") == "red \\x1b[2J\\x07\\x7f\nnext 数字三"


def test_what_is_said_stands_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    said = f"s3://bucket/:car:/[red]x[/] {'long ' * 60}end"
    say(results(), said)
    say_result(said)
    assert capsys.readouterr().out == f"{said}\n" * 2
    say(errors(), said, "yellow")
    say_error(said, "yellow")
    assert capsys.readouterr().err == f"{said}\n" * 2
    results().print(cell(":car: [red]"))
    assert capsys.readouterr().out == ":car: [red]\n"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_terminal_shows_colours_unless_the_user_wants_none(monkeypatch: pytest.MonkeyPatch, *, wanted: bool) -> None:
    monkeypatch.setenv("NO_COLOR", "" if wanted else "1")
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    say_error("a note", "yellow")
    assert ("\x1b[33m" in terminal.getvalue()) is wanted
    assert "a note" in terminal.getvalue()


@given(st.text())
def test_no_text_of_others_acts_on_a_terminal(text: str) -> None:
    assert "\x1b" not in shown(text)
    assert not set(shown(text)) & set("\x07\x08\x9b\u202e\u2066\r")


@pytest.mark.parametrize("place", ["message", "logTail", "eta", "state"])
def test_the_status_of_a_job_is_shown_as_text(place: str) -> None:
    status: dict[str, Any] = {
        "state": "Running", "progress": {"step": 1, "totalSteps": 2, "percent": 50, "eta": "1s"},
        "lastFailure": {"reason": "Failed", "attempt": 1, "at": "2026-11-30T00:00:00Z", "message": "m", "logTail": "l"},
    }  # fmt: skip
    if place == "state":
        status["state"] = HOSTILE
    (status["progress"] if place == "eta" else status["lastFailure"])[place] = HOSTILE
    metadata = {"name": "digits", "namespace": "team", "creationTimestamp": "2026-11-30T00:00:00Z"}
    job = {"metadata": metadata, "spec": {"output": {"s3": {"uri": "s3://b"}}}, "status": status}
    described = printed(description(job, [], [], NOW))
    assert is_harmless(described)
    table = printed(job_table([job], NOW, with_namespace=True))
    assert is_harmless(table)
    assert "[bold red]x[/]" in (table if place in {"eta", "state"} else described)
