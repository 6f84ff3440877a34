"""What users read besides pages: help texts, descriptions of fields, and messages; with the words that plain English avoids."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from adapter_api.fields import fields_of
from adapter_api.job import AdapterTrainingJob
from atj.deferred import DeferredGroup
from atj.main import app
from tests.support.repository import REPOSITORY

PROGRAMS = ("api/adapter_api", "agent/adapter_agent", "operator/adapter_operator", "trainer/adapter_trainer", "cli/atj")
RETIRED = {
    r"anew": "again",
    r"mend(?:s|ed|ing)?": "fix, correct",
    r"whoever|somebody": "who it is: the reader, another client",
    r"heed(?:s|ed)?": "read, obey",
    r"beside": "next to, in addition to, with",
    r"(?:go|goes|going|gone|went) on(?! the)": "continue, resume",
    r"(?:is|are|was|were|be|been|not) told(?! to)": "report",
    r"stands?(?! for)": "is, is committed, is kept",
}
"""Word of the old prose -> what to write instead."""
FRAGMENT = re.compile(r"(?:Of|Its|The same)\b")
"""Openings of texts that lean on the name above them, which their readers may not see."""
FEWEST_WORDS = 3

_RETIRED = {re.compile(rf"\b(?:{word})\b", re.IGNORECASE): instead for word, instead in RETIRED.items()}
_CODE = re.compile(r"`[^`]*`|https?://\S+|\]\([^)]*\)")


def retired_words(text: str) -> list[str]:
    """The retired words in a text outside its code, each with what to write instead."""
    plain = _CODE.sub(" ", text)
    return [f"{found[0]!r}: {instead}" for word, instead in _RETIRED.items() if (found := word.search(plain))]


def is_fragment(text: str) -> bool:
    """Whether a text says too little when it is read by itself."""
    return len(text.split()) < FEWEST_WORDS or FRAGMENT.match(text) is not None


def help_texts() -> Iterator[tuple[str, str]]:
    """Where a help text is shown, and the text: of every command, and of every argument and option."""
    yield from _help_of(typer.main.get_command(app), "atj")


def _help_of(command: Any, path: str) -> Iterator[tuple[str, str]]:
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.opts[0]}", parameter.help or ""
    if isinstance(command, DeferredGroup):
        deferred = {entry.name: entry for entry in command.entries}
        for entry in deferred.values():
            yield f"{path}, of {entry.name}", entry.summary
            yield from _help_of(entry.load(), f"{path} {entry.name}")
        for name, inner in command.commands.items():
            if name not in deferred:
                yield from _help_of(inner, f"{path} {name}")


def descriptions() -> Iterator[tuple[str, str]]:
    """Path of every field of a job, and its description."""
    return ((field.path, field.meaning) for field in fields_of(AdapterTrainingJob))


def messages() -> Iterator[tuple[str, str]]:
    """Place and text of every string literal of the programs that is not a docstring."""
    for package in PROGRAMS:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                    yield f"{name_of(path)}:{node.lineno}", node.value


def name_of(path: Path) -> str:
    """The path from the repository."""
    return path.relative_to(REPOSITORY).as_posix()
