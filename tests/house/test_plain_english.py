"""Help texts, descriptions, messages and pages are plain English: whole phrases, without the words of a private dialect."""

from pathlib import Path

import pytest

from adapter_api.training import TrainingConfig
from tests.house.support.pages import PAGES, name_of, prose_of
from tests.house.support.prose import descriptions, help_texts, is_fragment, messages, retired_words

HELP, DESCRIPTIONS = list(help_texts()), list(descriptions())
NOT_FOR_USERS = ("docs/decisions/", "docs/benchmarks.md", "CHANGELOG.md", "CONTRIBUTING.md", ".github/")
"""What explains the past, what a program writes, and the glossary itself."""
READ_BY_USERS = [page for page in PAGES if not name_of(page).startswith(NOT_FOR_USERS)]


def test_every_command_and_every_field_is_looked_at() -> None:
    shown = [where for where, _ in HELP]
    assert {"atj run", "atj checkpoints prune --now", "atj sample checkpoint", "atj logs --tail"} <= set(shown)
    assert len(DESCRIPTIONS) > len(TrainingConfig.model_fields) * 30


def test_a_help_text_or_a_description_is_a_phrase_that_stands_alone() -> None:
    assert [f"{where}: {text!r}" for where, text in (*HELP, *DESCRIPTIONS) if is_fragment(text)] == []


def test_no_help_text_and_no_description_uses_a_retired_word() -> None:
    assert [(where, found) for where, text in (*HELP, *DESCRIPTIONS) if (found := retired_words(text))] == []


def test_no_message_uses_a_retired_word() -> None:
    assert [(where, found) for where, text in messages() if (found := retired_words(text))] == []


@pytest.mark.parametrize(
    "text", ["Of the bucket.", "Its step.", "The same, as people say it.", "Every checkpoint.", ""]
)
def test_what_says_too_little_is_found(text: str) -> None:
    assert is_fragment(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the upload is sent anew", "'anew'"),
        ("the run goes on with it", "'goes on'"),
        ("the checkpoint stands", "'stands'"),
        ("why it failed is told in the status", "'is told'"),
        ("set it beside the address", "'beside'"),
    ],
)
def test_what_is_retired_is_found(text: str, word: str) -> None:
    assert [found.partition(":")[0] for found in retired_words(text)] == [word]


@pytest.mark.parametrize("page", READ_BY_USERS, ids=name_of)
def test_no_page_that_users_read_uses_a_retired_word(page: Path) -> None:
    paragraphs = prose_of(page).split("\n\n")
    assert [(text[:60], found) for text in paragraphs if (found := retired_words(" ".join(text.split())))] == []


@pytest.mark.parametrize("text", ["`[]` stands for any entry", "the trainer was told to stop", "see `docs/anew.md`"])
def test_what_is_plain_is_left_alone(text: str) -> None:
    assert retired_words(text) == []
