"""What users read keeps its word: every command says whether a test pastes it, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.house.support.pages import COMMANDS, NOT, PAGES, Block, anchors_of, blocks_of, links_of, name_of
from tests.support.repository import REPOSITORY

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PROGRAMS = re.compile(
    r"^\s*\$?\s*(?:sudo )?(?:accelerate|atj|aws|cd|curl|docker|git|helm|kubectl|make|pip|pipx|python3?|torchrun|uv) "
)
LANGUAGES = {COMMANDS, "json", "mermaid", "python", "text", "yaml"}


def test_the_readme_and_the_documents_are_found() -> None:
    names = [name_of(page) for page in PAGES]
    assert names[0] == "README.md"
    assert {"CONTRIBUTING.md", "SECURITY.md", "docs/install.md", "docs/kubernetes.md"} <= set(names)
    assert len([block for block in BLOCKS if block.language == COMMANDS]) >= 10


def test_every_block_says_what_language_it_is_in() -> None:
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


def test_every_block_of_commands_says_whether_it_is_pasted_and_if_not_why() -> None:
    commands = [block for block in BLOCKS if block.language == COMMANDS]
    assert [str(block) for block in commands if block.mark is None] == [], (
        "put `<!-- paste -->`, `<!-- paste on a cluster -->` or `<!-- not pasted: why -->` on the line above"
    )
    assert [str(block) for block in commands if block.mark == NOT and len(block.reason.split()) < 4] == []


def test_no_command_hides_in_a_block_of_another_language() -> None:
    others = [block for block in BLOCKS if block.language != COMMANDS]
    assert [str(block) for block in others if any(map(PROGRAMS.match, block.text.splitlines()))] == []


def test_only_commands_are_marked() -> None:
    assert [str(block) for block in BLOCKS if block.language != COMMANDS and block.mark is not None] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    broken = []
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue  # the rest of the world is not asked by a test
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and target.is_relative_to(REPOSITORY)
        if not is_there or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(
    ("above", "mark", "reason"),
    [
        ("<!-- paste -->", "paste", ""),
        ("<!-- paste on a cluster -->", "paste on a cluster", ""),
        ("<!-- not pasted: it waits for ever -->", "not pasted", "it waits for ever"),
        ("<!-- not pasted -->", None, ""),
        ("Some text.", None, ""),
    ],
)
def test_a_mark_stands_on_the_line_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str, mark: str | None, reason: str
) -> None:
    monkeypatch.setattr("tests.house.support.pages.REPOSITORY", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{above}\n```bash\nmake\n```\n")
    assert blocks_of(page) == [Block("page.md", 4, "bash", "make", mark, reason)]
