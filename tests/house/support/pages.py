"""The pages that users read: their fenced blocks, each with what its author says of pasting it, their headings and links."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.repository import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / ".github").rglob("*.md")],
    key=lambda path: (len(path.relative_to(REPOSITORY).parts), path.name != "README.md", path),
)
"""The README first, then what lies beside it and what lies deeper."""
COMMANDS = "bash"
"""Language of blocks that a reader pastes into a shell."""
HERE, ON_A_CLUSTER, NOT = "paste", "paste on a cluster", "not pasted"

_FENCE = re.compile(r"^\s*(```+|~~~+)\s*([^\s`]*)")
_MARK = re.compile(r"^<!-- (paste|paste on a cluster|not pasted: (?P<reason>.+)) -->$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    """Path from the repository."""
    line: int
    """Of its fence, from 1."""
    language: str
    text: str
    mark: str | None
    """HERE, ON_A_CLUSTER or NOT, as the comment on the line above says; None without one."""
    reason: str = ""
    """Why it is not pasted."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        begin = number
        number += 1
        while number < len(lines) and lines[number].strip() != fence[1]:
            number += 1
        marked = _MARK.match(lines[begin - 1]) if begin else None
        mark = None if marked is None else NOT if marked["reason"] else marked[1]
        reason = "" if marked is None else marked["reason"] or ""
        text = "\n".join(lines[begin + 1 : number])
        found.append(Block(name_of(page), begin + 1, fence[2], text, mark, reason))
        number += 1
    return found


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """What a link may name behind `#`, as GitHub makes it from headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(page: Path) -> list[str]:
    return _LINK.findall(prose_of(page))
