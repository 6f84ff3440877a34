"""docs/benchmarks.md as sections: one can be measured anew while the others stand."""

import os
import platform
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

HEAD = """# Benchmarks

`make bench` measures all of this and writes this page; `make bench ONLY="step start"` measures some sections anew. What is
compared runs side by side in one run; each section says when and on what machine that was.
"""


@dataclass
class Page:
    """The page's sections by title, in `titles`' order."""

    titles: list[str]
    sections: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, titles: list[str]) -> Self:
        """The page as it is; sections that nobody measures any more are left out."""
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
        found = dict(zip(parts[::2], parts[1::2], strict=True))
        return cls(titles, {title: body.strip() for title, body in found.items() if title in titles})

    def put(self, title: str, body: str) -> None:
        """Takes what was measured just now."""
        self.sections[title] = f"{_stamp()}\n\n{body.strip()}"

    def write(self, file: Path) -> None:
        """The whole page."""
        present = [f"## {title}\n\n{self.sections[title]}\n" for title in self.titles if title in self.sections]
        file.write_text("\n".join([HEAD, *present]), encoding="utf-8")


def _stamp() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "boto3"))
    return (
        f"*Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, Linux "
        f"{platform.release()}, Python {platform.python_version()}, {libraries}.*"
    )
