"""Settings of the whole suite: no hub, the same examples of property tests everywhere, one control plane for those that ask."""

import os

from hypothesis import settings

from tests.cluster.fixtures import cluster_tools, control_plane, pytest_collection_finish, pytest_configure

__all__ = ["cluster_tools", "control_plane", "pytest_collection_finish", "pytest_configure"]

# Before anything imports the hub's client, here or in a process that a test starts: no test depends on a network.
os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
