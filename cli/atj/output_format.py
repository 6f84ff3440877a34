"""The option that says whether a command prints for people or for programs."""

from enum import StrEnum
from typing import Annotated

import typer


class OutputFormat(StrEnum):
    """How a command prints what it found."""

    table = "table"
    json = "json"


Output = Annotated[
    OutputFormat, typer.Option("--output", "-o", help="Output format: table for people, json for programs.")
]
