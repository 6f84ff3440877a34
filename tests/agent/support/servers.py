"""The S3 servers that tests run on: SeaweedFS and rclone, which come as packages, and versitygw, which Go compiles."""

from tests.agent.support.rclone import Rclone
from tests.agent.support.seaweed import Seaweed
from tests.agent.support.versity import Versity

Kind = type[Seaweed] | type[Versity]
SERVERS: dict[str, Kind] = {"seaweedfs": Seaweed, "versitygw": Versity}
"""Those with conditional writes."""
COMPILED = ("versitygw",)
"""Servers whose tests are in the tier of what Go compiles."""
ALL: dict[str, type[Seaweed] | type[Versity] | type[Rclone]] = {**SERVERS, "rclone": Rclone}
