"""The S3 servers that tests run on: SeaweedFS from its package, and versitygw where it has been built or is asked for."""

from typing import TypeAlias

import pytest

from tests.agent.support.seaweed import Seaweed
from tests.agent.support.versity import PROGRAM, Versity
from tests.cluster.tools import Tools, default_cache

Kind: TypeAlias = type[Seaweed] | type[Versity]
SERVERS = ("seaweedfs", "versitygw")


def built(name: str) -> Kind:
    """The server of that name. versitygw is built by `make s3-servers`; a test run that finds none skips what needs it."""
    if name == "seaweedfs":
        return Seaweed
    if not Tools(default_cache()).has(PROGRAM):
        pytest.skip("versitygw is not built: `make s3-servers`")
    return Versity
