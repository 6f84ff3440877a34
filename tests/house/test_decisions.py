"""Every decision says its choice in its title and whether it is in force, and the table of decisions says the same."""

import re
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "docs/decisions"
DECISIONS = sorted(FOLDER.glob("[0-9]*.md"))
_STATUS = re.compile(
    r"^\*\*Status\.\*\* (?P<status>In force|Replaced in part|Replaced)(?P<rest>.*?)\n\n", re.MULTILINE | re.DOTALL
)


def title_of(page: Path) -> str:
    return page.read_text(encoding="utf-8").splitlines()[0].partition(": ")[2]


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [page.name[:3] for page in DECISIONS] == [f"{number:03}" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name[:3])
def test_a_decision_says_whether_it_is_in_force_and_if_not_what_replaces_it(page: Path) -> None:
    found = _STATUS.search(page.read_text(encoding="utf-8"))
    assert found is not None, "write `**Status.** In force.` or `**Status.** Replaced in part: [number](page) …`"
    assert found["status"] == "In force" or re.search(r"\[\d{3}\]\(\d{3}-[a-z0-9-]+\.md\)", found["rest"])


def test_the_table_has_every_decision_with_its_title_and_its_status() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d{3})\]\((\S+)\) \| (.*) \| (in force|replaced.*) \|$", table, re.MULTILINE)
    assert [(number, file, title) for number, file, title, _ in rows] == [
        (page.name[:3], page.name, title_of(page)) for page in DECISIONS
    ]
    for (_, _, _, status), page in zip(rows, DECISIONS, strict=True):
        found = _STATUS.search(page.read_text(encoding="utf-8"))
        assert found is not None
        assert status.startswith(found["status"].lower())
