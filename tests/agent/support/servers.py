"""The S3 servers that tests run on: SeaweedFS, which comes as a package, and versitygw, which Go compiles."""

from typing import TypeAlias

from tests.agent.support.seaweed import Seaweed
from tests.agent.support.versity import Versity

Kind: TypeAlias = type[Seaweed] | type[Versity]
SERVERS: dict[str, Kind] = {"seaweedfs": Seaweed, "versitygw": Versity}
COMPILED = ("versitygw",)
"""Servers whose tests are in the tier of what Go compiles."""
