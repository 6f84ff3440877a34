"""Measures and writes docs/benchmarks.md: `python -m benchmarks` all of it, `python -m benchmarks NAME...` these sections."""

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.page import Page

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "benchmarks.md"

SECTIONS = ("step", "training_speed", "encodings", "start", "stall", "transfer", "operator")
"""Modules of this package, in the page's order. Each has TITLE, and measure(), which returns the section's text."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the sections asked for, one after another, each in a process of its own; keeps the others as they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("section", nargs="*", metavar="NAME", help="by default all of them")
    parser.add_argument("--print-one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.section) - set(SECTIONS)):
        parser.error(f"there is no section {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    if options.print_one:
        print(importlib.import_module(f"benchmarks.{options.section[0]}").measure())
        return
    for name in options.section or SECTIONS:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks", name, "--print-one"]
        text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout
        titles = [importlib.import_module(f"benchmarks.{each}").TITLE for each in SECTIONS]
        page = Page.read(REPORT, titles)
        page.put(importlib.import_module(f"benchmarks.{name}").TITLE, text)
        page.write(REPORT)  # after each: a section that fails takes nothing from those before it
        print(text, flush=True)


if __name__ == "__main__":
    main()
